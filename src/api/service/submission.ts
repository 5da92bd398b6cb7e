import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { isDigest, type Digest } from "../../base/id.ts";
import type { StackSource } from "../../gen/croft/v1/stack_pb.ts";
import type { Submission } from "../../reconcile/contract.ts";
import type { Checked } from "../../stack/check/check.ts";
import type { Problem } from "../../stack/check/problem.ts";
import type { StackSpec } from "../../stack/model.ts";
import type { FileStore } from "../need.ts";

/** Env files and secrets are read into memory; nobody writes larger ones by hand. */
const readLimitBytes = 2 ** 20;

/**
 * A stack file and what was sent along with it, checked and complete. Throws `invalid` with every problem of the file,
 * or naming what was not sent.
 */
export async function readSubmission(
  source: StackSource | undefined,
  files: FileStore,
  call: Call,
): Promise<{ readonly submission: Submission; readonly warnings: readonly Problem[] }> {
  const given = givenSource(source);
  const first = await checkSource(given, undefined);
  if (first.spec === undefined) throw await refusal(first);
  const digests = sentFiles(first, given);
  const contents = await readAll(digests, files, call);
  const checked = await checkSource(given, contents);
  const { spec } = checked;
  if (spec === undefined) throw await refusal(checked);
  const missing = checked.needs.env.filter((variable) => given.env[variable] === undefined);
  if (missing.length > 0) {
    throw new Fault(
      "invalid",
      `${given.path} takes ${missing.join(", ")} from the environment, which has no such variable`,
      {
        hint: `set ${missing[0]} where croft is called`,
      },
    );
  }
  const secrets = secretValues(spec, given.env, contents);
  return { submission: { spec, files: Object.fromEntries(digests), secrets }, warnings: checked.problems };
}

/** Checks a stack file; with `files` also what is beside it. The checker is large and loaded when first needed. */
export async function checkSource(
  { path, text, folder, format }: StackSource,
  files: ReadonlyMap<string, Uint8Array> | undefined,
): Promise<Checked> {
  if (format !== "" && format !== "toml" && format !== "json") {
    throw new Fault("invalid", `there is no stack file format ${format}`, { hint: "use toml or json" });
  }
  const { checkStack } = await import("../../stack/check/check.ts");
  const source = {
    path: path === "" ? "croft.toml" : path,
    text,
    folder,
    format: format === "json" ? format : "toml",
  } as const;
  return checkStack(files === undefined ? source : { ...source, files });
}

export function givenSource(source: StackSource | undefined): StackSource {
  if (source === undefined) throw new Fault("invalid", "source is missing", { hint: "send the stack file's text" });
  return source;
}

async function refusal({ problems }: Checked): Promise<Fault> {
  const { formatProblems } = await import("../../stack/check/problem.ts");
  return new Fault("invalid", formatProblems(problems).trimEnd(), {
    hint: "croft plan shows the same without applying anything",
  });
}

function sentFiles({ needs }: Checked, { path, files }: StackSource): Map<string, Digest> {
  const digests = new Map<string, Digest>();
  for (const needed of needs.files) {
    const digest = files[needed];
    if (digest === undefined || !isDigest(digest)) {
      throw new Fault("invalid", `${path} refers to ${needed}, which was not sent along`, {
        hint: "send it with UploadFiles and name its digest in source.files",
      });
    }
    digests.set(needed, digest);
  }
  return digests;
}

/** The content of those that are small files. */
async function readAll(
  digests: ReadonlyMap<string, Digest>,
  files: FileStore,
  call: Call,
): Promise<Map<string, Uint8Array>> {
  const contents = new Map<string, Uint8Array>();
  for (const [path, digest] of digests) {
    const content = await files.readFile(digest, readLimitBytes, call).catch((error: unknown) => {
      if (!isFault(error, "not-found")) throw error;
      throw new Fault("precondition", `${path} was sent long ago and is no longer kept`, {
        hint: "send it again with UploadFiles",
        cause: error,
      });
    });
    if (content !== undefined) contents.set(path, content);
  }
  return contents;
}

function secretValues(
  spec: StackSpec,
  env: Readonly<Record<string, string>>,
  contents: ReadonlyMap<string, Uint8Array>,
): Map<string, Uint8Array> {
  const values = new Map<string, Uint8Array>();
  for (const [name, section] of Object.entries(spec.secrets)) {
    switch (section.source) {
      case "generate":
        break;
      case "env":
        values.set(name, Buffer.from(env[section.variable] ?? ""));
        break;
      case "file": {
        const content = contents.get(section.path);
        if (content === undefined) {
          throw new Fault(
            "invalid",
            `secret ${name}: ${section.path} is not a file of at most ${readLimitBytes} bytes`,
          );
        }
        values.set(name, content);
      }
    }
  }
  return values;
}
