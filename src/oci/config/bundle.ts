import { closeSync, constants, fstatSync, openSync, readSync, realpathSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { Fault } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";
import { configShape } from "./schema.ts";
import { binds, findingsOfSense, leadsOut } from "./sense.ts";
import { findingsOf, isJson, type Json, own, recordsIn } from "./shape.ts";

/** A bundle whose `config.json` was read and found right. */
export interface Bundle {
  /** Absolute, links resolved. */
  readonly directory: string;
  readonly configFile: string;
  readonly text: string;
  readonly config: Json;
  /** The root's directory, absolute. It is there. */
  readonly root: string;
}

/** Far above any real one; whatever reads it after us reads it into memory, too. */
const maxConfigBytes = 16 * 2 ** 20;

/**
 * Reads and checks a bundle. Nothing is created before that. A path in it that is relative stays inside the bundle, also
 * when links are followed: then it is refused as `hostile`. An absolute `root.path` is taken as it is: the specification
 * allows it, and podman and Docker keep their roots elsewhere.
 */
export function readBundle(path: string, configName = "config.json"): Bundle {
  const directory = realDirectory(path);
  const configFile = resolve(directory, configName);
  const text = readText(configFile, isAbsolute(configName) ? undefined : directory);
  const config = checkedConfig(text, configFile);
  checkSources(config, directory, configFile);
  return { directory, configFile, text, config, root: rootOf(config, directory, configFile) };
}

/** What `text` says, when it is a configuration that makes sense; `file` is its name in messages. */
export function checkedConfig(text: string, file: string): Json {
  const config = parsed(text, file);
  const findings = findingsOf(configShape, config);
  if (findings.length > 0) throw refused(file, findings);
  const sense = findingsOfSense(config);
  if (sense.length > 0) throw refused(file, sense);
  return config;
}

export function refused(file: string, findings: readonly string[]): Fault {
  return new Fault("invalid", `${file}: ${findings.join("; ")}`);
}

function realDirectory(path: string): string {
  try {
    const directory = realpathSync(path);
    if (statSync(directory).isDirectory()) return directory;
  } catch (error) {
    throw hostFault(error, `bundle ${path}`);
  }
  throw new Fault("invalid", `bundle ${path}: is not a directory`);
}

/** Never waits, whatever is at the path: a fifo is refused, not read. */
export function readText(path: string, within?: string): string {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw hostFault(error, `read ${path}`);
  }
  try {
    const facts = fstatSync(fd);
    if (!facts.isFile()) throw new Fault("invalid", `${path}: is not a file`);
    if (within !== undefined && !isBeneath(realpathSync(path), within)) {
      throw new Fault("hostile", `${path}: leads out of the bundle`);
    }
    if (facts.size > maxConfigBytes) throw new Fault("exhausted", `${path}: is larger than ${maxConfigBytes} bytes`);
    return decoded(readAll(fd), path);
  } finally {
    closeSync(fd);
  }
}

/** All of a descriptor, at most as much as a configuration may be long. */
export function readAll(fd: number): Uint8Array {
  const parts: Uint8Array[] = [];
  let lengthBytes = 0;
  for (;;) {
    const part = new Uint8Array(64 * 2 ** 10);
    const count = readSync(fd, part, 0, part.length, null);
    if (count === 0) return Buffer.concat(parts);
    lengthBytes += count;
    if (lengthBytes > maxConfigBytes) throw new Fault("exhausted", `input is longer than ${maxConfigBytes} bytes`);
    parts.push(part.subarray(0, count));
  }
}

export function decoded(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new Fault("invalid", `${name}: is not UTF-8`, { cause: error });
  }
}

export function parsed(text: string, name: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Fault("invalid", `${name}: is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (!isJson(value)) throw new Fault("invalid", `${name}: expected an object`);
  return value;
}

function rootOf(config: Json, directory: string, configFile: string): string {
  const path = String(own(config["root"], "path"));
  if (!isAbsolute(path) && leadsOut(path)) {
    throw new Fault("hostile", `${configFile}: root.path: "${path}" leads out of the bundle`);
  }
  const root = isAbsolute(path) ? path : join(directory, path);
  let real: string;
  try {
    real = realpathSync(root);
    if (!statSync(real).isDirectory())
      throw new Fault("invalid", `${configFile}: root.path: ${root} is not a directory`);
  } catch (error) {
    throw hostFault(error, `${configFile}: root.path: ${root}`);
  }
  if (!isAbsolute(path) && !isBeneath(real, directory)) {
    throw new Fault("hostile", `${configFile}: root.path: "${path}" leads out of the bundle by a link`);
  }
  return real;
}

/** Links in a relative source are followed by the runtime, so they are followed here. What is not there it refuses. */
function checkSources(config: Json, directory: string, configFile: string): void {
  for (const [index, mount] of recordsIn(config, "mounts").entries()) {
    const source = mount["source"];
    if (typeof source !== "string" || isAbsolute(source) || !binds(mount)) continue;
    const real = realPath(join(directory, source));
    if (real !== undefined && !isBeneath(real, directory)) {
      throw new Fault(
        "hostile",
        `${configFile}: mounts[${index}].source: "${source}" leads out of the bundle by a link; a path elsewhere must be absolute`,
      );
    }
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function isBeneath(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}
