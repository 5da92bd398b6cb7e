// A reporter that only counts: tests (not suites) that passed and failed.
export default async function* tally(source) {
  const counts = { passed: 0, failed: 0 };
  for await (const { type, data } of source) {
    if (data?.details?.type === "suite") continue;
    // A file of which nothing could be run is reported as a failing test with the file's name: it counts as one.
    if (type === "test:pass") counts.passed += 1;
    if (type === "test:fail") counts.failed += 1;
  }
  yield JSON.stringify(counts);
}
