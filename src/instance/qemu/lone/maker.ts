import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../../base/call.ts";
import type { Home } from "../../../base/home.ts";
import { findHierarchies, openCgroups } from "../../../host/cgroup.ts";
import type { ProgramLaunch } from "../../contract.ts";
import type { GuestSettings } from "../../guest.ts";
import { type Accelerator, findAccelerator } from "../accelerator.ts";
import { Kits } from "../guest/kit.ts";
import { launchMessage } from "../guest/launch.ts";
import { guestSize } from "../guest/size.ts";
import { guestMount, serveVolumes, volumesOf } from "../microvm/volume.ts";
import { instancePorts, machineArgs } from "../microvm/machine.ts";
import { type MachinePaths, socketDirInside } from "../microvm/place.ts";
import { shellPlace } from "../microvm/exec.ts";
import { bootTimeoutMs, handOver, hostLimits } from "../microvm/start.ts";
import { makeOwnDirectory, programPlaces, makeRoot, hostFacts, sandboxConfig } from "../sandbox.ts";
import { hostTscKhz } from "../tsc.ts";

/**
 * MicroVMs that no daemon keeps, for a caller with records and a container of its own around QEMU (`croft-oci`). The same
 * guest, command line and messages as the engine's; what differs is who watches and where the files are.
 */

export interface LoneParts {
  readonly accelerator: Accelerator["name"];
  readonly detail: string;
  readonly kernelPath: string;
  readonly initramfsPath: string;
}

export interface LonePlace {
  readonly directory: string;
  readonly shared: string;
  readonly cgroup: string;
  readonly program: string;
  readonly uid: number;
}

const kernelInside = "/guest/kernel";
const initramfsInside = "/guest/initramfs";
const programInside = "/croft-oci";

/** For the watcher and for what relays programs that run beside the main one. */
const watcherBytes = 192 * 2 ** 20;
const watcherThreads = 400;

export async function prepareLone(home: Home, kernelPath: string | undefined, call: Call): Promise<LoneParts> {
  const [accelerator, kit] = await Promise.all([findAccelerator(home, call), new Kits(home).get(kernelPath, call)]);
  return {
    accelerator: accelerator.name,
    detail: `${accelerator.detail}; Linux ${kit.kernel.version}`,
    kernelPath: kit.kernel.path,
    initramfsPath: kit.initramfs.path,
  };
}

/** The OCI configuration of the container around QEMU: a sandbox as the engine's, with the watcher as its program. */
export function loneConfig(launch: ProgramLaunch, parts: LoneParts, place: LonePlace): Record<string, unknown> {
  const { uid } = place;
  makeOwnDirectory(place.shared, uid);
  const rootPath = join(place.directory, "root");
  const places = programPlaces();
  makeRoot(rootPath, places.links);
  const size = guestSize(launch.limits);
  const limits = hostLimits(launch.limits, size);
  const binds = [
    ...places.binds,
    { source: parts.kernelPath, destination: kernelInside, readOnly: true },
    { source: parts.initramfsPath, destination: initramfsInside, readOnly: true },
    { source: place.program, destination: programInside, readOnly: true },
    { source: place.shared, destination: socketDirInside, readOnly: false },
  ];
  const sandbox = {
    argv: [programInside, "--watch-machine"],
    uid,
    binds,
    devices: ["/dev/net/tun", ...(parts.accelerator === "kvm" ? ["/dev/kvm"] : [])],
    limits: {
      ...limits,
      memoryBytes: (limits.memoryBytes ?? 0) + watcherBytes,
      pids: (limits.pids ?? 0) + watcherThreads,
    },
    log: { maxBytes: 0 },
  };
  const config = sandboxConfig(sandbox, { rootPath, binds, cgroupPath: place.cgroup, ...hostFacts() });
  return config as Record<string, unknown>;
}

function pathsOf({ directory, shared }: LonePlace): MachinePaths {
  return {
    dir: directory,
    socketDir: shared,
    controlSocket: join(shared, "control"),
    shellSocket: join(shared, "shell"),
    qmpSocket: join(shared, "qmp"),
    exitFile: join(shared, "exit"),
    startedFile: join(shared, "started"),
    keyFile: join(directory, "key.json"),
    volumesFile: join(directory, "volumes.json"),
    madeFile: join(directory, "made.json"),
  };
}

/** Serves the launch's directories from now on, and says how QEMU is to be run. The taps are those of its own network. */
export function equipLone(
  launch: ProgramLaunch,
  parts: LoneParts,
  place: LonePlace,
  taps: readonly string[],
): readonly string[] {
  const paths = pathsOf(place);
  const cgroups = openCgroups(findHierarchies());
  const volumes = serveVolumes(volumesOf(launch), paths, place.uid, place.cgroup, cgroups, () => {});
  const tscKhz = hostTscKhz();
  const args = machineArgs(
    {
      accelerator: { name: parts.accelerator, detail: parts.detail },
      size: guestSize(launch.limits),
      kernelPath: kernelInside,
      initramfsPath: initramfsInside,
      ...(tscKhz === undefined ? {} : { tscKhz }),
      layers: [],
      taps: [],
      volumes,
      ports: { ...instancePorts(launch.terminal, 0), exit: `file,path=${socketDirInside}/exit` },
      qmp: `socket,path=${socketDirInside}/qmp,server=on,wait=off`,
      memory: { kind: "own" },
    },
    [],
  );
  return [
    ...args,
    ...taps.flatMap((tap, index) => [
      "-netdev",
      `tap,id=net${index},ifname=${tap},script=no,downscript=no`,
      "-device",
      `virtio-net-device,netdev=net${index}`,
    ]),
  ];
}

/** Hands the launch to the guest that boots; returns when its program runs. */
export async function handOverLone(
  launch: ProgramLaunch,
  parts: LoneParts,
  place: LonePlace,
  settings: GuestSettings,
  isAlive: () => boolean,
  call: Call,
): Promise<void> {
  const paths = pathsOf(place);
  const whole = { ...launch, mounts: launch.mounts.map(guestMount) };
  const message = (): Promise<Buffer> =>
    Promise.resolve(launchMessage(whole, { nowSeconds: call.clock.nowMs() / 1000, settings }));
  const accelerator = { name: parts.accelerator, detail: parts.detail };
  const what = `start ${launch.id}`;
  const limitMs = bootTimeoutMs(accelerator, "booting");
  await handOver(what, paths, message, isAlive, { fresh: "booting", limitMs }, call);
  try {
    // Whoever runs a program later comes without us, and finds dropbear there.
    await shellPlace(what, paths).begin(call);
    writeFileSync(paths.startedFile, "");
  } catch (error) {
    // A program that ended meanwhile has run all the same. Its caller may have taken its files away already.
    if (!(await hasEnded(paths, isAlive, call))) throw error;
  }
}

/** A guest says how its program ended before it goes; one that was killed is gone at once. */
async function hasEnded({ exitFile }: MachinePaths, isAlive: () => boolean, call: Call): Promise<boolean> {
  const isSaid = (): boolean => (statSync(exitFile, { throwIfNoEntry: false })?.size ?? 0) > 0;
  for (let tries = 0; tries < 50; tries += 1) {
    if (isSaid() || !isAlive()) return true;
    await call.clock.sleep(20, call.signal);
  }
  return false;
}
