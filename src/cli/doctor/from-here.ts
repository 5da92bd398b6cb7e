import { accessSync, constants, existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { Fault } from "../../base/fault.ts";
import type { Finding } from "../../client/message.ts";
import { describeTarget } from "../../client/target.ts";
import type { Context } from "../context.ts";

/** Programs that the daemon runs, and the Debian package each is in. */
const programs: readonly (readonly [program: string, debianPackage: string])[] = [
  ["conmon", "conmon"],
  ["nft", "nftables"],
  ["ip", "iproute2"],
  ["dnsmasq", "dnsmasq-base"],
  ["mmdebstrap", "mmdebstrap"],
];
const runtimes = ["crun", "runc"];

/** What a client can see of a machine whose daemon does not answer. */
export async function examineFromHere(fault: Fault, { target, env }: Context): Promise<readonly Finding[]> {
  const daemon: Finding = { topic: "daemon", status: "failed", detail: fault.message, mend: fault.hint ?? "" };
  // Of another machine nothing can be seen.
  if (target.kind === "tcp") return [daemon];
  return [daemon, socketFinding(describeTarget(target)), userFinding(), ...programFindings(env["PATH"] ?? "")];
}

function socketFinding(path: string): Finding {
  const topic = "socket";
  if (!existsSync(path)) {
    return { topic, status: "failed", detail: `${path} does not exist`, mend: "the daemon makes it when it starts" };
  }
  try {
    accessSync(path, constants.W_OK);
    return { topic, status: "warning", detail: `${path} exists, but nobody listens`, mend: "start the daemon" };
  } catch {
    return {
      topic,
      status: "failed",
      detail: `${path} may not be opened by this user`,
      mend: "run as root, or join the group croft and log in again",
    };
  }
}

function userFinding(): Finding {
  const isRoot = process.getuid?.() === 0;
  return {
    topic: "user",
    status: isRoot ? "ok" : "warning",
    detail: isRoot ? "root" : "not root",
    mend: isRoot ? "" : "the daemon itself is started as root",
  };
}

function programFindings(path: string): readonly Finding[] {
  // Where Debian keeps what only root runs; a person's PATH often lacks it.
  const folders = [...path.split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"].filter((folder) => folder !== "");
  const find = (program: string): string | undefined =>
    folders.map((folder) => join(folder, program)).find((candidate) => existsSync(candidate));
  const runtime = runtimes.map(find).find((found) => found !== undefined);
  return [
    present("runtime", runtime, runtimes.join(" ")),
    ...programs.map(([program, debianPackage]) => present(program, find(program), debianPackage)),
  ];
}

function present(topic: string, found: string | undefined, debianPackage: string): Finding {
  return {
    topic,
    status: found === undefined ? "failed" : "ok",
    detail: found ?? "not installed",
    mend: found === undefined ? `apt install ${debianPackage}` : "",
  };
}
