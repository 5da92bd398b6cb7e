// What a run of Croft could leave on a host, as lists of names, so that before and after can be compared.
import { spawnSync } from "node:child_process";
import { globSync, readFileSync, readdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";

/** Kind → names of all there is now. */
export function takeTrace(root) {
  return {
    mount: readFileSync("/proc/self/mountinfo", "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" ")[4] ?? ""),
    "network namespace": list("/run/netns"),
    link: list("/sys/class/net"),
    "nft table": lines("nft", ["list", "tables"]),
    cgroup: globSync(["/sys/fs/cgroup/{,*/}{croft,cr-*}", "/sys/fs/cgroup/{,*/}{croft,cr-*}/*"]).filter(isDirectory),
    "loop device": lines("losetup", ["-l", "-n", "-O", "NAME,BACK-FILE"]),
    process: processes(),
    file: [
      ...list(tmpdir()).filter((name) => /croft|^cr-/.test(name) && !name.startsWith("croft-test-")),
      ...tracked(root),
    ],
  };
}

/** What is in `after` and was not in `before`, a line each. */
export function difference(before, after) {
  return Object.entries(after).flatMap(([kind, names]) => {
    const known = new Set(before[kind]);
    return names.filter((name) => !known.has(name)).map((name) => `${kind} ${name}`);
  });
}

function processes() {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        const ours =
          /\b(croftd|conmon|crun|runc|dnsmasq|docker-registry)\b/.test(words) && !/scripts\/(run|test)/.test(words);
        return ours ? [`${pid}: ${words.slice(0, 120)}`] : [];
      } catch {
        return [];
      }
    });
}

function tracked(root) {
  return lines("git", ["-C", root, "status", "--porcelain", "--untracked-files=all"]);
}

function lines(program, args) {
  const { stdout } = spawnSync(program, args, { encoding: "utf8" });
  return (stdout ?? "")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

function list(directory) {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function isDirectory(path) {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}
