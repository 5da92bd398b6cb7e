import { readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { canonicalJson, sha256 } from "../../base/id.ts";
import { errnoOf, hostFault } from "../../host/errno.ts";
import type { Launch, LaunchMount, ProgramLaunch } from "../contract.ts";

/**
 * Small files of the engine's own, on tmpfs: written with a rename, so that whoever reads after a crash sees all of one
 * or nothing. Reading and writing them takes microseconds, less than waiting for a thread would.
 */
export function writeRecord(path: string, value: unknown): void {
  try {
    writeFileSync(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch (error) {
    throw hostFault(error, `write ${path}`);
  }
}

/** Undefined when it is not there. Only this engine writes these files, so the caller may trust their shape. */
export function readRecord(path: string): unknown {
  const text = readText(path);
  return text === undefined ? undefined : (JSON.parse(text) as unknown);
}

/** The content of a small file; undefined when it is not there. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ESRCH"].includes(errnoOf(error) ?? "")) return undefined;
    throw hostFault(error, `read ${path}`);
  }
}

/** The names in a directory; none when it is not there. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw hostFault(error, `list ${directory}`);
  }
}

/** A launch on disk: the contents of its files lie beside it. */
export interface LaunchRecord<Kind extends Launch = ProgramLaunch> {
  /** Equal for launches that differ in nothing but what can be changed in place: their limits. */
  readonly fingerprint: string;
  /** File mounts have no `content` here. The limits are those in force: `resize` changes them. */
  readonly launch: Kind;
}

export function launchRecord(launch: ProgramLaunch): LaunchRecord {
  const mounts = launch.mounts.map((mount) =>
    mount.kind === "file" ? { ...mount, content: sha256(mount.content) } : mount,
  );
  const fingerprint = sha256(canonicalJson({ ...launch, mounts, limits: undefined }));
  const plain = launch.mounts.map((mount): LaunchMount => {
    return mount.kind === "file" ? { ...mount, content: new Uint8Array() } : mount;
  });
  return { fingerprint, launch: { ...launch, mounts: plain } };
}
