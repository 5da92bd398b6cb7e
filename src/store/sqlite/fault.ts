import { readFileSync, statSync } from "node:fs";
import { Fault, type Reason } from "../../base/fault.ts";
import { hostFault } from "../../host/errno.ts";

/** What a primary result code of SQLite means to us (sqlite.org/rescode.html). Every other one is `failed`. */
const meanings: Readonly<Record<number, { reason: Reason; what: string; hint: string }>> = {
  5: { reason: "conflict", what: "another process holds the database", hint: "one daemon at a time can use a home" },
  8: {
    reason: "forbidden",
    what: "the database is read-only",
    hint: "remount its file system for writing, or make the daemon's user own the file",
  },
  11: {
    reason: "corrupt",
    what: "the database is damaged",
    hint: "restore it from a backup; running workloads are not affected meanwhile",
  },
  13: { reason: "exhausted", what: "the disk is full", hint: "free some space and try again" },
  14: { reason: "failed", what: "the database cannot be opened", hint: "check that its directory exists" },
  26: {
    reason: "corrupt",
    what: "the file is not a database",
    hint: "restore it from a backup; running workloads are not affected meanwhile",
  },
};

/** `thrown` by SQLite or the file system as a Fault that names the file. A Fault stays itself. */
export function databaseFault(thrown: unknown, attempted: string, path: string): Fault {
  const resultCode = thrown instanceof Error && "errcode" in thrown ? Number(thrown.errcode) : undefined;
  const meaning = resultCode === undefined ? undefined : meanings[resultCode & 0xff];
  if (meaning === undefined) return hostFault(thrown, `${attempted} ${path}`);
  const holder = meaning.reason === "conflict" ? lockHolder(path) : undefined;
  return new Fault(
    meaning.reason,
    `${attempted}: ${meaning.what} (${path}${holder === undefined ? "" : `, process ${holder}`})`,
    { hint: meaning.hint, cause: thrown, detail: holder === undefined ? { path } : { path, holder } },
  );
}

/** The pid that holds a lock on `path`, by the kernel's own list; undefined when it cannot be told. */
function lockHolder(path: string): string | undefined {
  try {
    const { ino } = statSync(path);
    // 1: POSIX  ADVISORY  WRITE 4242 08:01:131 0 EOF
    for (const line of readFileSync("/proc/locks", "utf8").split("\n")) {
      const [, , , , pid, file] = line.split(/\s+/);
      if (file?.split(":")[2] === String(ino)) return pid;
    }
  } catch {
    // The name only makes the message better; the conflict stands without it.
  }
  return undefined;
}
