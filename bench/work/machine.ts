import { spawn } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { TestDaemon } from "../../test/e2e/daemon.ts";
import { croftProgram } from "../contender/croft.ts";
import { startLibvirt } from "../contender/libvirt.ts";
import type { PeerName } from "../contender/contender.ts";
import { type Command, runSync } from "../process.ts";
import { median, rowOf } from "../row.ts";
import type { Work } from "./ground.ts";

/** A full machine, from the command to the first instruction that is not the firmware's, which says so on the serial line. */
export const machine: Work = {
  name: "machine",
  measure: async ({ folder, rounds }) => {
    const disk = join(folder, "speaks.raw");
    writeFileSync(disk, speakingDisk());
    await using daemon = await TestDaemon.start();
    const env = { CROFT_ROOT: daemon.root };
    const croft = (...args: readonly string[]): Command => ({ argv: [croftProgram, ...args], env });
    runSync(croft("image", "import", disk, "--name", "speaks", "--unverified"));
    const stack = daemon.folder("bench", { "croft.toml": stackFile });
    runSync(croft("up", join(stack, "croft.toml"), "--yes"));
    const { id } = JSON.parse(runSync(croft("inspect", "bench/box"))) as { id: string };
    const logPath = join(daemon.root, "lib", "log", "machine", id, "log");
    const libvirt = await startLibvirt(join(folder, "libvirt"), disk);
    try {
      const times: Record<"croft" | "virsh", number[]> = { croft: [], virsh: [] };
      runSync(croft("stop", "bench/box"));
      for (let round = 0; round < rounds; round += 1) {
        const said = words(logPath);
        times.croft.push(await untilFirst(croft("start", "bench/box"), () => words(logPath) > said));
        runSync(croft("stop", "bench/box"));
        rmSync(libvirt.serialPath, { force: true });
        times.virsh.push(await untilFirst(libvirt.start, () => words(libvirt.serialPath) > 0));
        libvirt.end();
      }
      const figures = new Map<"croft" | PeerName, number>([
        ["croft", median(times.croft)],
        ["virsh", median(times.virsh)],
      ]);
      return [
        rowOf("machine: start to first guest instruction", "ms", figures, [
          { sense: "at most", factor: 1, of: "virsh" },
        ]),
      ];
    } finally {
      await libvirt.stop();
    }
  },
};

const stackFile = `
stack = "bench"

[vm.box]
disk       = { image = "speaks" }
memory     = "192MiB"
balloon    = true
cloud-init = false
restart    = "never"
stop-grace = "10ms"
`;

/** A boot sector that writes `!` to the first serial port and stands still. */
function speakingDisk(): Uint8Array {
  const disk = Buffer.alloc(2 ** 20);
  // mov dx, 0x3f8; mov al, '!'; out dx, al; hlt; jmp to the hlt
  Buffer.from("baf803b021eef4ebfd", "hex").copy(disk);
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}

/** How often it spoke so far. */
function words(path: string): number {
  try {
    return readFileSync(path, "latin1").split("!").length - 1;
  } catch {
    return 0;
  }
}

/** Milliseconds from the command until it is so, however long the command goes on. */
async function untilFirst({ argv, env }: Command, isSo: () => boolean): Promise<number> {
  const [program = "", ...args] = argv;
  const beganMs = performance.now();
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  while (!isSo()) {
    if (performance.now() - beganMs > 60_000) throw new Error(`${argv.join(" ")}: the machine never spoke`);
    await sleep(1);
  }
  const tookMs = performance.now() - beganMs;
  await ended;
  return tookMs;
}
