// A network, mount and pid namespace of its own for a suite: whatever happens inside ends with it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const namespaces = ["-n", "-m", "-p", "-f", "--mount-proc", "--kill-child", "--propagation", "private"];

/** The first process of the namespace stays a shell, which buries whatever loses its parent. It begins when told to. */
const init = 'read -r _ <&3; exec 3<&-; ip link set lo up && "$@"; exit $?';

/** Where the network that slirp4netns makes has its name server; a file of ours says so inside. */
const nameServer = "10.0.2.3";
const initOnline = `mount --bind "$1" /etc/resolv.conf && shift && ${init}`;

/** Runs it to its end and returns its exit code. `online`: with a way out, which nothing from outside can come in by. */
export async function runIsolated(argv, { cwd, env, online, scratch }) {
  const resolvers = join(scratch, "resolv.conf.json");
  if (online) writeFileSync(resolvers, `nameserver ${nameServer}\n`);
  const shell = online ? ["sh", "-c", initOnline, "sh", resolvers] : ["sh", "-c", init, "sh"];
  const child = spawn("unshare", [...namespaces, ...shell, ...argv], {
    cwd,
    env,
    stdio: ["inherit", "inherit", "inherit", "pipe"],
  });
  const ended = once(child, "exit");
  // `unshare` waits for its child and hears no signal but this one, with which all that is inside goes.
  let wayOut;
  const endsWithUs = () => {
    child.kill("SIGKILL");
    wayOut?.kill();
  };
  process.once("exit", endsWithUs);
  if (online) wayOut = await openWayOut(child.pid);
  child.stdio[3].end("\n");
  const [code] = await ended;
  process.off("exit", endsWithUs);
  if (wayOut !== undefined) {
    const gone = once(wayOut, "exit");
    wayOut.kill();
    await gone;
  }
  return code;
}

/** slirp4netns speaks for the namespace as any program of this machine would: no link, route or rule of it is touched. */
async function openWayOut(pid) {
  const own = readlinkSync("/proc/self/ns/net");
  while (readlinkSync(`/proc/${pid}/ns/net`) === own) await sleep(20);
  const slirp = spawn(
    "slirp4netns",
    ["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=3", String(pid), "tap0"],
    { stdio: ["ignore", "ignore", "inherit", "pipe"] },
  );
  const ready = once(slirp.stdio[3], "data");
  const failed = once(slirp, "exit").then(() => {
    throw new Error("slirp4netns ended: the tests that fetch Debian packages cannot run");
  });
  failed.catch(() => {});
  await Promise.race([ready, failed]);
  return slirp;
}
