import { mkdirSync, readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { pino } from "pino";
import { listen } from "../api/listen.ts";
import { services } from "../api/service/all.ts";
import { backgroundCall, systemClock, type Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { defaultHome, homeBeneath, type Home } from "../base/home.ts";
import { keepDescriptorsPrivate } from "../host/kernel.ts";
import { mountTmpfs } from "../host/mount.ts";
import { TarMachineFiles } from "../image/machine/machine-files.ts";
import { DiskLibrary } from "../image/disk/library.ts";
import { ImageStore } from "../image/images.ts";
import { SubmittedFiles } from "../image/submitted-files.ts";
import { StoredOperations } from "../operation/stored-operations.ts";
import { InstanceFace } from "../reconcile/instances.ts";
import { MachineFace } from "../reconcile/machines.ts";
import { Reconciler } from "../reconcile/reconciler.ts";
import { StackFace } from "../reconcile/stacks.ts";
import { renderDiff, renderPlan } from "../stack/plan/render.ts";
import type { Pool } from "../storage/contract.ts";
import { SealedSecrets } from "../secret/sealed-secrets.ts";
import { readConfig } from "./config.ts";
import { listForeignSubnets, openDrivers, type Drivers } from "./drivers.ts";
import { LocalHost } from "./host-facts.ts";
import { tearDown } from "./teardown.ts";

/**
 * The daemon: puts the parts together, serves the API, runs the loop. Workloads do not depend on it: it may be stopped,
 * upgraded or killed at any time, and finds everything again when it comes back.
 */
const usage = `croftd — runs what croft.toml files declare

usage: croftd [--root DIR] [--teardown]

  --root DIR   keep everything beneath DIR instead of /var/lib/croft, /run/croft and /etc/croft
  --teardown   stop every workload and take links, mounts, tables and cgroups off the host; data stays
  --version    print the version
`;

const graceMs = 5000;
/** API calls at once; more is somebody's leak. */
const maxCalls = 2000;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      root: { type: "string" },
      teardown: { type: "boolean" },
      version: { type: "boolean" },
      help: { type: "boolean", short: "h" },
    },
  });
  const version = readVersion();
  if (values.help === true) return void process.stdout.write(usage);
  if (values.version === true) return void process.stdout.write(`croftd ${version}\n`);
  if (process.getuid?.() !== 0)
    throw new Fault("forbidden", "croftd needs root: it makes containers, mounts and networks", {
      hint: "run it with sudo",
    });
  process.umask(0o022);
  keepDescriptorsPrivate();
  const home = values.root === undefined ? defaultHome() : homeBeneath(resolve(values.root));
  for (const directory of [home.libDir, home.runDir, home.etcDir]) {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
  }
  await keepInMemory(home.runDir);
  const call = backgroundCall(systemClock);
  const drivers = await openDrivers(home, systemClock, call);
  if (values.teardown === true) await tearDown(home, drivers, call);
  else await serve(home, drivers, version, call);
  await drivers.close();
}

async function serve(home: Home, drivers: Drivers, version: string, call: Call): Promise<void> {
  const clock = systemClock;
  const startedMs = clock.nowMs();
  const log = pino({
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { error: pino.stdSerializers.err },
  });
  const config = await readConfig(home);
  const { engines, pool, network, store, events } = drivers;
  // One forgotten promise must not take the API away from everybody.
  process.on("unhandledRejection", (error) => log.error({ error }, "nobody heard of a failure"));
  const onUnexpected = (attempted: string, thrown: unknown): void => log.error({ err: thrown }, attempted);
  const [images, diskImages, machineFiles, files, secrets, operations] = await Promise.all([
    ImageStore.open(home, clock),
    DiskLibrary.open({ libDir: home.libDir, holdersOf: (path) => holdersOf(path, pool, call) }),
    TarMachineFiles.open(home),
    SubmittedFiles.open(home),
    SealedSecrets.open(store, join(home.etcDir, "secret.key"), call),
    StoredOperations.open(store, clock, { onUnexpected }),
  ]);
  const reconciler = new Reconciler({
    engines,
    pool,
    network,
    images,
    diskImages,
    machineFiles,
    files,
    secrets,
    store,
    events,
    operations,
    clock,
    subnetPool: config.subnetPool,
    foreignSubnets: listForeignSubnets,
  });
  await reconciler.start();
  const instances = new InstanceFace(reconciler);
  const machines = new MachineFace(reconciler, instances);
  const cloud = { stacks: new StackFace(reconciler), instances, machines };
  const api = await listen(
    services({
      cloud,
      images,
      diskImages,
      events,
      operations,
      secrets,
      files,
      registries: images,
      host: new LocalHost(home, drivers, version, startedMs),
      plans: {
        plan: ({ stack, plan }, options) => renderPlan(stack, plan, options),
        diff: renderDiff,
      },
    }),
    { socketPath: home.socketPath, ...(config.tcp === undefined ? {} : { tcp: config.tcp }) },
    { clock, log, maxCalls },
  );
  log.info({ socket: home.socketPath, tcp: api.tcpPort, version }, "croftd is ready");
  await endOfService();
  log.info("croftd is stopping; workloads go on");
  await api.close(graceMs);
  reconciler.stop();
  await images.close();
}

/** Disks of machines that read from a file of the library, for people. */
async function holdersOf(path: string, { disks }: Pool, call: Call): Promise<readonly string[]> {
  const all = (await disks?.listDisks(call)) ?? [];
  return all.flatMap(({ id, name, backing }) => (backing.includes(path) ? [`${name} of ${id}`] : []));
}

/** From the kernel's linux/magic.h. */
const tmpfsMagic = 0x01021994;

/** Far more than it ever holds; what is not used costs nothing. */
const runDirBytes = 2 ** 30;

/** Secrets and sockets lie in the run directory, which must not reach a disk: `/run` is in memory, another root may not be. */
async function keepInMemory(runDir: string): Promise<void> {
  const { type } = await statfs(runDir);
  if (type !== tmpfsMagic) await mountTmpfs(runDir, { sizeBytes: runDirBytes, mode: 0o755 });
}

/** Resolves at SIGTERM or SIGINT; a second one ends us at once, which is safe at any time. */
function endOfService(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve());
  });
}

function readVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

try {
  await main();
  process.exit(0);
} catch (thrown) {
  const fault = Fault.from(thrown, "start croftd");
  process.stderr.write(`croftd: ${fault.message}\n${fault.hint === undefined ? "" : `  ${fault.hint}\n`}`);
  process.exit(1);
}
