import { Fault, type Reason } from "../base/fault.ts";

/**
 * The failures of the operating system as Faults.
 *
 * Both doors to the kernel end here: errors of Node's own calls carry `code`, calls by `kernel.ts` a number. The
 * errno's name is kept as `detail.errno`, so a caller that must tell EBUSY from EINVAL asks `errnoOf` instead of
 * reading a message.
 */

/** Two numbers have two names; these are the ones that Node's own errors do not use. */
const aliases: ReadonlySet<string> = new Set(["EWOULDBLOCK", "EOPNOTSUPP"]);

/** Those of Linux that Node has no name for, as far as our calls meet them. */
const unnamed: readonly (readonly [number, string])[] = [
  [15, "ENOTBLK"],
  [117, "EUCLEAN"],
];

/** Nothing of it is needed where nothing fails, and some programs are over in a few milliseconds. */
const numbers = (): Readonly<Record<string, number>> => process.getBuiltinModule("node:os").constants.errno;

let namesByNumber: ReadonlyMap<number, string> | undefined;

/** Errnos whose meaning does not depend on what was attempted; every other one is `failed`. */
const reasons: Readonly<Record<string, Reason>> = {
  ENOENT: "not-found",
  ESRCH: "not-found",
  EEXIST: "already-exists",
  EPERM: "forbidden",
  EACCES: "forbidden",
  ENOSPC: "exhausted",
  EDQUOT: "exhausted",
  ENOMEM: "exhausted",
  EMFILE: "exhausted",
  ENFILE: "exhausted",
  EAGAIN: "exhausted",
  ENOSYS: "unsupported",
  ENOTSUP: "unsupported",
  ENODEV: "unsupported",
  ECONNREFUSED: "unavailable",
  ETIMEDOUT: "timeout",
  EUCLEAN: "corrupt",
  EBADMSG: "corrupt",
};

const sentences: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  ESRCH: "no such process",
  EEXIST: "exists already",
  EPERM: "the kernel does not permit it",
  EACCES: "permission denied",
  ENOSPC: "no space left on the device",
  EDQUOT: "quota exceeded",
  ENOMEM: "out of memory",
  EMFILE: "too many open files in this process",
  ENFILE: "too many open files on this machine",
  EAGAIN: "a limit on processes or locks is reached",
  ENOSYS: "this kernel does not have the call",
  ENOTSUP: "not supported here",
  ENODEV: "this kernel does not have that file system or device",
  ECONNREFUSED: "nobody listens there",
  ETIMEDOUT: "timed out",
  EBUSY: "in use",
  EINVAL: "the kernel refuses the arguments",
  ELOOP: "too many symbolic links, or a link where none may be",
  ENOTDIR: "a part of the path is not a directory",
  EISDIR: "is a directory",
  ENOTEMPTY: "the directory is not empty",
  EXDEV: "leads to another file system or out of its bounds",
  EROFS: "the file system is read-only",
  ENAMETOOLONG: "the name is too long",
  EIO: "input/output error",
  ENOTBLK: "the kernel mounts it from a block device only",
  EUCLEAN: "the file system is damaged",
  EBADMSG: "the file system is damaged",
};

/** `ENOENT` for 2; `E<number>` for one that Node does not name. */
export function errnoName(number: number): string {
  namesByNumber ??= new Map([
    ...Object.entries(numbers())
      .filter(([name]) => !aliases.has(name))
      .map(([name, number]) => [number, name] as const),
    ...unnamed,
  ]);
  return namesByNumber.get(number) ?? `E${number}`;
}

/** A Fault for `errno` (its name, such as `EBUSY`), saying what was attempted on what. */
export function errnoFault(errno: string, attempted: string, cause?: unknown): Fault {
  const sentence = sentences[errno];
  const text = sentence === undefined ? errno : `${sentence} (${errno})`;
  return new Fault(reasons[errno] ?? "failed", `${attempted}: ${text}`, { cause, detail: { errno } });
}

/** `thrown` as a Fault; an error of Node's file system, process and network calls gets its errno's reason. */
export function hostFault(thrown: unknown, attempted: string): Fault {
  if (thrown instanceof Fault) return thrown;
  const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
  if (typeof code === "string" && code in numbers()) return errnoFault(code, attempted, thrown);
  return Fault.from(thrown, attempted);
}

/** The errno's name behind a Fault of this folder or an error of Node's own calls; undefined when there is none. */
export function errnoOf(thrown: unknown): string | undefined {
  if (thrown instanceof Fault) return thrown.detail["errno"];
  const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
  return typeof code === "string" && code in numbers() ? code : undefined;
}
