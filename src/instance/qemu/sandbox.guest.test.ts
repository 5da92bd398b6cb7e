import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import { instanceId } from "../../base/id.ts";
import { findHierarchies, openCgroups } from "../../host/cgroup.ts";
import { run } from "../../host/process.ts";
import { chooseRuntime } from "../crun/probe.ts";
import { clearRun } from "../monitor/clear.ts";
import { layoutOf } from "../monitor/layout.ts";
import { observe } from "../monitor/observe.ts";
import { runtimes } from "../monitor/runtime.ts";
import { acceleratorArgs, confinedArgs, findAccelerator } from "./accelerator.ts";
import { connectQmp, type Qmp } from "./qmp.ts";
import { loadSandbox, makeOwnDirectory, sandboxUid } from "./sandbox.ts";

describe("QEMU in its sandbox", () => {
  const call = backgroundCall();
  const id = instanceId("suite", "sandbox", 1, "0123abcd");
  const cgroups = openCgroups(findHierarchies());
  let directory: string;
  let pid: number;
  let qmp: Qmp;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "sandbox."));
    const home = homeBeneath(directory);
    const layout = layoutOf(home, "machine");
    const paths = layout.of(id);
    const uid = sandboxUid(id);
    const io = join(paths.dir, "io");
    makeOwnDirectory(io, uid);
    const disk = join(directory, "secret.raw");
    writeFileSync(disk, Buffer.alloc(1 << 20), { mode: 0o600 });
    const fd = openSync(disk, "r+");
    const accelerator = await findAccelerator(home, call);
    const runtime = runtimes[await chooseRuntime(home, call)];
    const argv = [...confinedArgs, ...acceleratorArgs(accelerator), "-M", "q35", "-m", "64M", "-display", "none", "-S"];
    argv.push("-qmp", "unix:/io/qmp.sock,server=on,wait=off");
    argv.push("-add-fd", "fd=3,set=1", "-blockdev", "driver=file,node-name=disk,filename=/dev/fdset/1");
    const binds = [{ source: io, destination: "/io", readOnly: false }];
    const log = { maxBytes: 1 << 20 };
    const sandbox = { argv, uid, binds, descriptors: [fd], limits: { pids: 100, memoryBytes: 2 ** 29 }, log };
    ({ pid } = await loadSandbox(id, sandbox, runtime, layout, call));
    closeSync(fd);
    await runtime.release(id, layout, paths, call);
    const isAlive = (): boolean => observe(paths, cgroups).main !== undefined;
    qmp = await connectQmp(join(io, "qmp.sock"), id, isAlive, call);
  });

  after(async () => {
    qmp[Symbol.dispose]();
    const home = homeBeneath(directory);
    await clearRun(layoutOf(home, "machine").of(id), cgroups, call);
    assert.deepEqual(cgroups.pids(`/${home.prefix}`), []);
    cgroups.remove(`/${home.prefix}`);
    rmSync(directory, { recursive: true });
  });

  it("answers, and refuses in its own words", async () => {
    const status = (await qmp.execute("query-status", {}, call)) as { status: string };
    assert.equal(status.status, "prelaunch");
    await assert.rejects(qmp.execute("no-such-command", {}, call), (error) => isFault(error, "unsupported"));
  });

  it("runs as a user of its own, without capabilities, network or files of the host", async () => {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    assert.match(status, new RegExp(`^Uid:\\s+${sandboxUid(id)}\\s`, "m"));
    assert.match(status, /^CapEff:\s+0000000000000000$/m);
    assert.match(status, /^CapBnd:\s+0000000000000000$/m);
    assert.match(status, /^Seccomp:\s+2$/m);
    assert.match(status, /^NoNewPrivs:\s+1$/m);
    assert.notEqual(readlinkSync(`/proc/${pid}/ns/net`), readlinkSync("/proc/self/ns/net"));
    const { stdout } = await run(["ls", "-A", `/proc/${pid}/root`, `/proc/${pid}/root/etc`], {}, call);
    assert.doesNotMatch(stdout, /home|root$|var|boot|passwd/m);
  });

  it("has a disk that its user could not open, and takes another one later", async () => {
    const nodes = (await qmp.execute("query-named-block-nodes", {}, call)) as readonly { "node-name": string }[];
    assert.ok(nodes.some((node) => node["node-name"] === "disk"));
    const path = join(directory, "later.raw");
    writeFileSync(path, Buffer.alloc(4096), { mode: 0o600 });
    const fd = openSync(path, "r");
    try {
      await qmp.executeWithDescriptor("add-fd", { "fdset-id": 7 }, fd, call);
    } finally {
      closeSync(fd);
    }
    const file = { driver: "file", "node-name": "later", filename: "/dev/fdset/7", "read-only": true };
    await qmp.execute("blockdev-add", file, call);
    await assert.rejects(qmp.execute("blockdev-add", { ...file, filename: path, "node-name": "path" }, call), (error) =>
      isFault(error, "failed"),
    );
  });

  it("tells events to whoever listens", async () => {
    const events = qmp.events(call);
    await qmp.execute("cont", {}, call);
    const first = await events.next();
    assert.equal(first.done === true ? "" : first.value.event, "RESUME");
    await events.return();
  });

  it("lets its caller give up", async () => {
    const controller = new AbortController();
    const asked = qmp.execute("query-status", {}, backgroundCall(call.clock, controller.signal));
    controller.abort();
    await assert.rejects(asked, (error) => isFault(error, "cancelled"));
    assert.ok(qmp.isOpen);
    await qmp.execute("query-status", {}, call);
  });
});
