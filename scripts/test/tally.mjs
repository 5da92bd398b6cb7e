// A reporter that only counts: tests (not suites) that passed and failed, by the file that was run (a test may be written
// in another one: a suite that several drivers pass).
export default async function* tally(source) {
  const files = {};
  for await (const { type, data } of source) {
    // A suite fails with its tests; or by itself, when what is to be done before or after them fails: that counts.
    const isSuite = data?.details?.type === "suite";
    if (isSuite && (type === "test:pass" || data.details.error?.failureType === "subtestsFailed")) continue;
    if (type !== "test:pass" && type !== "test:fail") continue;
    // A file of which nothing could be run is reported as a failing test with the file's name: it counts as one.
    const counts = (files[data.entryFile ?? data.file ?? data.name] ??= { passed: 0, failed: 0 });
    counts[type === "test:pass" ? "passed" : "failed"] += 1;
  }
  yield JSON.stringify(files);
}
