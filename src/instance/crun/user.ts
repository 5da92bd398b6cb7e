import { Fault } from "../../base/fault.ts";

/** Whom a process runs as, in numbers. */
export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups: readonly number[];
  /** Of the image's own passwd file; `/` when the user is not in there. */
  readonly home: string;
}

/**
 * `postgres`, `1000`, `1000:1000`, `postgres:ssl` or nothing (root), looked up in the image's own files. A number need
 * not be listed there. A user without a group gets the one of passwd (or 0) and those that name it as member.
 */
export function resolveUser(text: string, passwd: string, group: string): ResolvedUser {
  const [userText = "", groupText] = text === "" ? ["0"] : text.split(":", 2);
  const users = parseLines(passwd, 7);
  const entry = users.find(([name]) => name === userText) ?? users.find(([, , uid]) => uid === numeric(userText));
  const uid = entry?.[2] ?? numeric(userText);
  if (uid === undefined) {
    throw new Fault("invalid", `user "${userText}" is not in the image's /etc/passwd`, {
      hint: "use a name that the image has, or a number",
    });
  }
  const home = entry?.[5]?.startsWith("/") === true ? entry[5] : "/";
  const groups = parseLines(group, 4);
  if (groupText !== undefined) return { uid: id(uid), gid: groupId(groupText, groups), groups: [], home };
  const gid = id(entry?.[3] ?? "0");
  const memberOf = groups.filter(
    ([, , , members]) => entry !== undefined && members?.split(",").includes(entry[0] ?? ""),
  );
  const others = new Set(memberOf.map((fields) => id(fields[2] ?? "")).filter((other) => other !== gid));
  return { uid: id(uid), gid, groups: [...others], home };
}

function groupId(text: string, groups: readonly string[][]): number {
  const gid = groups.find(([name]) => name === text)?.[2] ?? numeric(text);
  if (gid !== undefined) return id(gid);
  throw new Fault("invalid", `group "${text}" is not in the image's /etc/group`, {
    hint: "use a name that the image has, or a number",
  });
}

/** Lines of at least three fields whose third is an id; everything else in a hostile or odd file is passed over. */
function parseLines(text: string, fields: number): string[][] {
  return text
    .split("\n")
    .map((line) => line.split(":", fields))
    .filter(([name, , number]) => name !== undefined && name !== "" && numeric(number ?? "") !== undefined)
    .map((parts) => [parts[0] ?? "", parts[1] ?? "", numeric(parts[2] ?? "") ?? "", ...parts.slice(3)]);
}

/** The number without leading zeros, or undefined when it is none. */
function numeric(text: string): string | undefined {
  return /^[0-9]{1,10}$/.test(text) ? String(Number(text)) : undefined;
}

function id(text: string): number {
  const number = numeric(text);
  // The last one means "leave as it is" to the kernel.
  if (number === undefined || Number(number) > 0xffff_fffe) {
    throw new Fault("invalid", `"${text}" is not a user or group id`, { hint: "ids go from 0 to 4294967294" });
  }
  return Number(number);
}

/** Names by number. Of several names for a number the first counts, as for the C library. */
export function namesOf(passwd: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>();
  for (const line of passwd.split("\n")) {
    const [name = "", , uid = ""] = line.split(":");
    // The end of the last line begins an empty one.
    if (name !== "" && /^[0-9]+$/.test(uid) && !names.has(Number(uid))) names.set(Number(uid), name);
  }
  return names;
}
