import assert from "node:assert/strict";
import { test } from "node:test";
import { type InstanceId, sha256 } from "../base/id.ts";
import type { MachineLaunch } from "../instance/contract.ts";
import type { InstanceSection } from "../stack/model.ts";
import { check, machine, runOf, stackOf, submit, World, type Daemon } from "./world.fixture.ts";

async function begin(): Promise<{ world: World; daemon: Daemon }> {
  const world = new World();
  return { world, daemon: await world.boot() };
}

function launchOf(world: World, name: string): MachineLaunch {
  const launch = world.engine.instances.get(world.id(name))?.launch;
  assert.ok(launch?.kind === "machine");
  return launch;
}

const guest = { kind: "microvm" } as const;
const volume = [{ kind: "volume", volume: "data", destination: "/data", readOnly: false }] as const;
const volumes = { data: { protect: false } };
const root = { name: "root", from: { kind: "image", image: "debian.qcow2" } } as const;
const data = { name: "data", from: { kind: "blank" }, sizeBytes: 2 ** 20 } as const;

test("each kind is run by its engine, they need each other, and a later daemon finds them all", async () => {
  const { world, daemon } = await begin();
  const spec = stackOf({
    files: machine({ health: check }),
    guest: { ...guest, needs: ["files"], health: check },
    web: { needs: ["guest"] },
  });
  const up = await daemon.up(spec);
  assert.equal(up.status, "succeeded", up.fault?.message ?? "");
  const engines = daemon.instances.list().map(({ name, engine }) => `${name} ${engine}`);
  assert.deepEqual(engines, ["files memory-vm", "guest memory-microvm", "web memory"]);
  const pids = ["files-1", "guest-1", "web-1"].map((name) => world.pid(name) ?? 0);
  assert.deepEqual(
    pids,
    pids.toSorted((left, right) => left - right),
  );
  assert.deepEqual(
    [...world.host.ports.values()].map(({ id, kind }) => `${id.split(".", 2).join(".")} ${kind}`).sort(),
    ["shop.files tap", "shop.guest tap", "shop.web netns"],
  );
  const before = world.running();
  daemon.kill();
  const later = await world.boot();
  await later.pass(30_000);
  assert.deepEqual(world.running(), before);
  assert.equal((await later.down("shop")).status, "succeeded");
  const remains = await world.remains();
  assert.deepEqual([remains["instances"], remains["ports"], remains["roots"]], [[], [], []]);
});

test("a guest whose code is translated has longer to become healthy than a container of the same file", async () => {
  for (const [kind, isHealthy] of [
    ["container", false],
    ["microvm", true],
  ] as const) {
    const world = new World();
    world.patience = 10;
    const daemon = await world.boot();
    world.sick.add("web");
    const update = { order: "stop-first", healthyWithinMs: 3000 } as const;
    const going = daemon.up(stackOf({ web: { kind, health: { ...check, intervalMs: 1000 }, update } }), 60_000);
    // Past the check's two retries and what the update may take, and within ten times of either.
    await daemon.pass(12_000);
    world.sick.clear();
    const { status, fault } = await going;
    assert.equal(status === "succeeded", isHealthy, `${kind}: ${fault?.message}`);
  }
});

test("one word makes a microvm of a container, by making it anew", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: { mounts: volume } }, { volumes }));
  const before = world.id("web-1");
  const spec = stackOf({ web: { ...guest, mounts: volume } }, { volumes });
  const { plan } = await daemon.stacks.preview(submit(spec), { pruneVolumes: false }, world.call);
  assert.match(plan.steps.map(({ cost, why }) => `${cost} ${why}`).join("\n"), /recreate kind container → microvm/);
  assert.equal((await daemon.up(spec)).status, "succeeded");
  const launch = world.engine.instances.get(world.id("web-1"))?.launch;
  assert.notEqual(world.id("web-1"), before);
  assert.ok(launch?.kind === "program" && launch.root.kind === "block");
  assert.deepEqual(
    launch.mounts.map((mount) => (mount.kind === "bind" ? mount.source : "")),
    ["/memory/volumes/shop.data"],
  );
});

test("an engine that cannot work refuses its sections with its reason, and everybody else goes on", async () => {
  const world = new World();
  world.engine.obstacles.set("microvm", "there is no kernel");
  const daemon = await world.boot();
  assert.equal((await daemon.up(stackOf({ web: {} }))).status, "succeeded");
  const spec = stackOf({ web: {}, guest });
  const { plan } = await daemon.stacks.preview(submit(spec), { pruneVolumes: false }, world.call);
  assert.deepEqual(plan.refusals, [
    { subject: "microvm guest", why: "no microvm can run here: there is no kernel", hint: "mend it in the test" },
  ]);
  const refusal = { reason: "unsupported", message: /no microvm can run here: there is no kernel/ };
  await assert.rejects(daemon.up(spec), refusal);
  const run = runOf();
  await assert.rejects(daemon.instances.run({ ...run, section: { ...run.section, ...guest } }, world.call), refusal);
  assert.deepEqual(world.names(), ["web-1"]);
  // Mended, it is asked again: nobody has to restart the daemon.
  world.engine.obstacles.clear();
  assert.equal((await daemon.up(spec)).status, "succeeded");
});

test("a machine is changed on the machine that is there: in place where it can, else by a restart", async () => {
  const { world, daemon } = await begin();
  const up = async (section: Partial<InstanceSection>): Promise<void> => {
    const { status, fault } = await daemon.up(stackOf({ files: machine(section) }, networks));
    assert.equal(status, "succeeded", fault?.message ?? "");
  };
  const networks = { networks: { default: { internal: false }, back: { internal: true } } };
  await up({});
  const [id, pid] = [world.id("files-1"), world.pid("files-1")];
  await up({ memoryBytes: 2 ** 29 });
  assert.equal(world.pid("files-1"), pid);
  await up({ memoryBytes: 2 ** 29, disks: [root, data], networks: ["default", "back"] });
  assert.deepEqual([world.id("files-1"), world.pid("files-1")], [id, pid]);
  const { disks, attachment, limits } = launchOf(world, "files-1");
  assert.deepEqual(
    disks.map(({ name }) => name),
    ["root", "data"],
  );
  assert.equal(attachment.kind === "tap" && attachment.taps.length, 2);
  assert.equal(limits.memoryBytes, 2 ** 29);
  await up({ memoryBytes: 2 ** 32, disks: [root, data], tpm: true });
  assert.equal(world.id("files-1"), id);
  assert.notEqual(world.pid("files-1"), pid);
  assert.equal(launchOf(world, "files-1").tpm, true);
});

test("what would lose what is on a disk is refused", async () => {
  const { daemon } = await begin();
  await daemon.up(stackOf({ files: machine({ disks: [root, { ...data, sizeBytes: 2 ** 30 }] }) }));
  const smaller = stackOf({ files: machine({ disks: [root, data] }) });
  await assert.rejects(daemon.up(smaller), { reason: "protected", message: /disk data cannot shrink/ });
  const other = stackOf({
    files: machine({ disks: [root, { ...data, from: { kind: "image", image: "x.qcow2" }, sizeBytes: 2 ** 31 }] }),
  });
  await assert.rejects(daemon.up(other), { reason: "protected", message: /disk data cannot become something else/ });
});

test("disks outlive their machine, and go when that is asked for", async () => {
  const { world, daemon } = await begin();
  const spec = stackOf({ files: machine({ disks: [root, data] }) });
  await daemon.up(spec);
  const disks = (await world.remains())["disks"];
  assert.equal(disks?.length, 2);
  const id = world.id("files-1");
  await daemon.during(daemon.machines.snapshot(id, { name: "before", memory: false }, world.call));
  await daemon.down("shop");
  assert.deepEqual((await world.remains())["disks"], disks);
  await daemon.up(spec);
  assert.deepEqual((await world.remains())["disks"], disks);
  // So do what firmware and TPM remember, and the snapshots, which are in the disks.
  const snapshots = await daemon.machines.snapshots(id, world.call);
  assert.deepEqual(
    snapshots.map(({ name }) => name),
    ["before"],
  );
  // Another image for the first disk is another machine.
  const moved = machine({ disks: [{ ...root, from: { kind: "image", image: "other.qcow2" } }] });
  await daemon.up(stackOf({ files: moved }));
  assert.equal((await world.remains())["disks"]?.length, 3);
  await daemon.up(stackOf({ files: moved }), 5000, { pruneVolumes: true });
  assert.equal((await world.remains())["disks"]?.length, 1);
  await daemon.down("shop", true);
  const { disks: left, keepsakes } = await world.remains();
  assert.deepEqual([left, keepsakes], [[], []]);
});

test("a run that is removed takes the disks of its machine along", async () => {
  const { world, daemon } = await begin();
  const request = runOf({ name: "once" });
  const section = { ...request.section, ...machine(), networks: request.section.networks };
  await daemon.during(daemon.instances.run({ ...request, section }, world.call));
  assert.equal((await world.remains())["disks"]?.length, 1);
  await daemon.during(daemon.instances.remove(world.id("once-1"), true, world.call));
  assert.deepEqual((await world.remains())["disks"], []);
});

test("a disk image that is not here, or is none, is told before anything is begun", async () => {
  const { daemon, world } = await begin();
  const from = (kind: "image" | "iso", image: string) =>
    stackOf({ files: machine({ disks: [{ ...root, from: { kind, image } }] }) });
  await assert.rejects(daemon.up(from("image", "missing.qcow2")), { reason: "not-found", hint: /croft image import/ });
  await assert.rejects(daemon.up(from("image", "debian.iso")), { reason: "invalid", message: /is an ISO/ });
  await assert.rejects(daemon.up(from("iso", "debian.qcow2")), { reason: "invalid", message: /is no ISO/ });
  const small = stackOf({ files: machine({ disks: [{ ...root, sizeBytes: 2 ** 20 }] }) });
  await assert.rejects(daemon.up(small), { reason: "invalid", message: /cannot hold debian.qcow2/ });
  assert.deepEqual((await world.remains())["instances"], []);
});

test("cloud-init is told what the instance is called, where it is and who may log in", async () => {
  const { world, daemon } = await begin();
  const sshKeys = [{ key: "ssh-ed25519 AAAA anna@box" }];
  const networks = { default: { internal: false }, back: { internal: true } };
  await daemon.up(stackOf({ files: machine({ sshKeys, networks: ["back", "default"], replicas: 2 }) }, { networks }));
  const { cloudInit, attachment } = launchOf(world, "files-2");
  assert.ok(cloudInit !== undefined && attachment.kind === "tap");
  assert.deepEqual(JSON.parse(cloudInit.metaData), {
    "instance-id": world.id("files-2"),
    "local-hostname": "files-2",
    "public-keys": ["ssh-ed25519 AAAA anna@box"],
  });
  assert.match(cloudInit.userData, /^#cloud-config\n/);
  const { version, ethernets } = JSON.parse(cloudInit.networkConfig) as {
    version: number;
    ethernets: Record<string, { match: { macaddress: string }; addresses: string[]; routes?: { via: string }[] }>;
  };
  assert.equal(version, 2);
  const nics = Object.values(ethernets);
  assert.deepEqual(
    nics.map(({ match, addresses }) => `${match.macaddress} ${addresses.join()}`),
    attachment.taps.map(({ mac, address, prefixLength }) => `${mac} ${address}/${prefixLength}`),
  );
  // The way out leads over the network that has one.
  assert.deepEqual(
    nics.map(({ routes }) => routes?.[0]?.via),
    [undefined, attachment.gateway],
  );
});

test("suspended is not running, also for a later daemon, and goes on when it is started or applied", async () => {
  const { world, daemon } = await begin();
  const spec = stackOf({ guest, files: machine(), web: {} });
  await daemon.up(spec);
  const suspend = async (name: string, by: Daemon): Promise<void> => {
    const view = await by.during(by.instances.suspend(world.id(name), world.call));
    assert.equal(view.status, "suspended");
  };
  await suspend("guest-1", daemon);
  await suspend("guest-1", daemon);
  await suspend("files-1", daemon);
  assert.deepEqual(world.names(), ["web-1"]);
  daemon.kill();
  const later = await world.boot();
  await later.pass(60_000);
  assert.deepEqual(world.names(), ["web-1"]);
  const started = await later.during(later.instances.start(world.id("guest-1"), world.call));
  assert.equal(started.status, "running");
  assert.equal((await later.up(spec)).status, "succeeded");
  assert.deepEqual(world.names(), ["files-1", "guest-1", "web-1"]);
  await suspend("files-1", later);
  const stopped = await later.during(later.instances.stop(world.id("files-1"), undefined, world.call));
  assert.equal(stopped.status, "exited");
  const refusal = { reason: "precondition", message: /it is exited/ };
  await assert.rejects(later.instances.suspend(world.id("files-1"), world.call), refusal);
});

test("what an engine lacks is unsupported, with a hint", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ web: {} }));
  const id = world.id("web-1");
  const refusal = { reason: "unsupported", message: /^engine memory cannot/, hint: /microvm/ };
  await assert.rejects(daemon.instances.suspend(id, world.call), refusal);
  await assert.rejects(daemon.machines.snapshot(id, { name: "a", memory: false }, world.call), refusal);
  await assert.rejects(daemon.machines.console(id, world.call), refusal);
  await assert.rejects(daemon.machines.screenshot(id, world.call), refusal);
  await assert.rejects(Array.fromAsync(daemon.machines.export(id, world.call)), refusal);
});

test("snapshots are taken, told, gone back to once, and deleted", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ files: machine() }));
  const { machines } = daemon;
  const id = world.id("files-1");
  await machines.snapshot(id, { name: "disks", memory: false }, world.call);
  await machines.snapshot(id, { name: "all", memory: true }, world.call);
  await machines.snapshot(id, { name: "all", memory: true }, world.call);
  assert.deepEqual(
    (await machines.snapshots(id, world.call)).map(({ name, memory }) => `${name} ${memory}`),
    ["disks false", "all true"],
  );
  const kind = { reason: "conflict" };
  await assert.rejects(machines.snapshot(id, { name: "all", memory: false }, world.call), kind);
  await assert.rejects(machines.snapshot(id, { name: "No Name", memory: false }, world.call), { reason: "invalid" });
  const pids = [world.pid("files-1")];
  for (const name of ["disks", "all"]) {
    const view = await daemon.during(machines.revert(id, name, world.call));
    assert.equal(view.status, "running");
    assert.equal(view.restarts, 0);
    pids.push(world.pid("files-1"));
  }
  assert.equal(new Set(pids).size, 3);
  // A daemon that comes later has nothing to go back to.
  daemon.kill();
  const later = await world.boot();
  await later.pass(60_000);
  assert.equal(world.pid("files-1"), pids.at(-1));
  await later.machines.removeSnapshot(id, "all", world.call);
  await assert.rejects(later.machines.revert(id, "all", world.call), { reason: "not-found", hint: /there is: disks/ });
});

test("a stopped machine goes back and stays stopped, unless its memory comes back too", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ files: machine() }));
  const { machines, instances } = daemon;
  const id = world.id("files-1");
  await machines.snapshot(id, { name: "disks", memory: false }, world.call);
  await machines.snapshot(id, { name: "all", memory: true }, world.call);
  await daemon.during(instances.stop(id, undefined, world.call));
  assert.equal((await daemon.during(machines.revert(id, "disks", world.call))).status, "created");
  assert.equal((await daemon.during(machines.revert(id, "all", world.call))).status, "running");
});

test("a machine goes from one host to another as a file, and is cloned when it is off", async () => {
  const { world, daemon } = await begin();
  await daemon.up(stackOf({ files: machine({ disks: [root, data], tpm: true, cpus: 2, networks: ["default"] }) }));
  const id = world.id("files-1");
  const file = Buffer.concat(await Array.fromAsync(daemon.machines.export(id, world.call)));
  const other = await begin();
  const { machines } = other.daemon;
  const bytes = async function* () {
    yield file;
  };
  const options = { name: "copy", author: "tester" };
  const view = await other.daemon.during(machines.import(bytes(), options, other.world.call));
  assert.deepEqual([view.stack, view.status, view.section.tpm, view.section.cpus], ["copy", "running", true, 2]);
  assert.deepEqual(
    view.section.disks?.map(({ name, from }) => `${name} ${from.kind}`),
    ["root image", "data image"],
  );
  await assert.rejects(machines.import(bytes(), options, other.world.call), { reason: "already-exists" });
  // The library of the other host was not asked to have them: they have no names, and go when an import fails.
  assert.match(other.world.engine.keepsakes.get(view.id)?.firmware ?? "", /^file /);
  const kept = async (): Promise<readonly string[]> =>
    (await other.daemon.reconciler.parts.diskImages.list(other.world.call)).flatMap(({ names }) => names);
  assert.deepEqual(await kept(), []);

  const clone = { name: "twin", author: "tester" };
  await assert.rejects(daemon.machines.clone(id, clone, world.call), { reason: "precondition", hint: /suspend/ });
  await daemon.during(daemon.instances.stop(id, undefined, world.call));
  const twin = await daemon.during(daemon.machines.clone(id, clone, world.call));
  assert.deepEqual([twin.stack, twin.status], ["twin", "running"]);
  const disks = (await world.remains())["disks"] ?? [];
  const own = (of: InstanceId): number => disks.filter((disk) => disk.startsWith(`${of}/`)).length;
  assert.deepEqual([own(id), own(twin.id)], [2, 2]);
  assert.equal(world.engine.keepsakes.get(twin.id)?.firmware, id);
});

test("a clone has what its original was made of: files that were sent along, secrets, the image of that day", async () => {
  const { world, daemon } = await begin();
  const machineWith = machine({
    sshKeys: [{ path: "key.pub" }],
    cloudInit: { kind: "files", userData: { secret: "words" } },
  });
  const spec = stackOf({ files: machineWith }, { secrets: { words: { source: "file", path: "words.yaml" } } });
  const submission = submit(spec, { words: "#cloud-config\nhostname: mine\n" });
  await daemon.up({ ...submission, files: { "key.pub": sha256("key") } });
  const id = world.id("files-1");
  await daemon.during(daemon.instances.stop(id, undefined, world.call));
  const twin = await daemon.during(daemon.machines.clone(id, { name: "twin", author: "tester" }, world.call));
  assert.equal(twin.status, "running");
  const { cloudInit } = launchOf(world, "twin-1");
  assert.equal(cloudInit?.userData, "#cloud-config\nhostname: mine\n");
  assert.deepEqual((JSON.parse(cloudInit?.metaData ?? "") as Record<string, unknown>)["public-keys"], ["file"]);
  // They are its own: it stays what it is when the other stack is gone.
  await daemon.down("shop", true);
  daemon.kill();
  const later = await world.boot();
  await later.during(later.instances.stop(twin.id, undefined, world.call));
  await later.during(later.instances.start(twin.id, world.call));
  assert.equal(launchOf(world, "twin-1").cloudInit?.userData, "#cloud-config\nhostname: mine\n");
});

test("a machine's console is what run attaches to", async () => {
  const { world, daemon } = await begin();
  const request = runOf({ name: "once", attach: true });
  const section = { ...request.section, ...machine(), networks: request.section.networks };
  const { session } = await daemon.during(daemon.instances.run({ ...request, section }, world.call));
  assert.ok(session !== undefined);
  await session.close();
  assert.deepEqual(world.names(), ["once-1"]);
});
