import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import type { Home } from "../../base/home.ts";
import { readBootId } from "../../host/proc.ts";
import { run } from "../../host/process.ts";
import { readRecord, writeRecord } from "../monitor/record.ts";

/** What executes guests: the processor itself, or QEMU's translation of their code, which is slower by far. */
export interface Accelerator {
  readonly name: "kvm" | "tcg";
  /** One line for a person: what was found. */
  readonly detail: string;
  /** What a person does to get KVM. */
  readonly mend?: string;
}

interface Remembered extends Accelerator {
  readonly boot: string;
}

export const qemuProgram = "/usr/bin/qemu-system-x86_64";

/** Where the answer of this boot is kept, for all engines of the home. */
function recordPath(home: Home): string {
  return join(home.runDir, "qemu-accelerator.json");
}

/**
 * KVM where a guest really runs with it, else TCG. That the device opens says nothing: inside some virtual machines it is
 * there, and a guest stands still as soon as it leaves the processor's oldest modes. So a tiny guest that does so is run,
 * once in a boot. `unsupported` when QEMU is not installed or does not even run that guest without KVM.
 */
export async function findAccelerator(home: Home, call: Call): Promise<Accelerator> {
  const boot = readBootId();
  const known = knownAccelerator(home, boot);
  if (known !== undefined) return known;
  // Engines that ask at once share one trial.
  const asked = trials.get(home.runDir) ?? tryAndRemember(home, boot, call);
  trials.set(home.runDir, asked);
  try {
    return await asked;
  } finally {
    if (trials.get(home.runDir) === asked) trials.delete(home.runDir);
  }
}

/** What was found since the host's boot; undefined when nobody asked yet. */
function knownAccelerator(home: Home, boot: string): Accelerator | undefined {
  const known = readRecord(recordPath(home)) as Remembered | undefined;
  if (known?.boot !== boot) return undefined;
  const { boot: _, ...accelerator } = known;
  return accelerator;
}

/** Translated code takes some ten times as long, measured with a database's first start. */
const translatedPatience = 10;

/** How many times longer than natively a guest may take: `Engine.patience`. Undefined until the accelerator was asked for. */
export function guestPatience(home: Home): number | undefined {
  const known = knownAccelerator(home, readBootId());
  if (known === undefined) return undefined;
  return known.name === "tcg" ? translatedPatience : 1;
}

/**
 * For how many processors a machine has room that wants at most so many. Code of one that can have one processor only is
 * translated without memory barriers, as if nobody else looked at its memory. But devices do, on threads of their own, and
 * now and then one misses that the guest asked for something: one guest in some dozens waited for its first read of a disk
 * for ever. So a machine without KVM always has room for a second one. QEMU 8.1 mended a part of it ("tcg: Do not elide
 * memory barriers for !CF_PARALLEL in system mode").
 */
export function processorRoom({ name }: Accelerator, wanted: number): number {
  return name === "tcg" ? Math.max(2, wanted) : wanted;
}

/** Under way, by the home's run directory. */
const trials = new Map<string, Promise<Accelerator>>();

async function tryAndRemember(home: Home, boot: string, call: Call): Promise<Accelerator> {
  const found = await tryAccelerators(home, call);
  mkdirSync(home.runDir, { recursive: true, mode: 0o755 });
  writeRecord(recordPath(home), { ...found, boot } satisfies Remembered);
  return found;
}

/**
 * What every QEMU of ours is started with: nothing that was not asked for, and system calls that a guest's device needs,
 * no others. \`-no-user-config\` and \`-nodefaults\` keep files of the host from changing what runs.
 */
export const confinedArgs: readonly string[] = [
  qemuProgram,
  "-nodefaults",
  "-no-user-config",
  "-sandbox",
  "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
];

/** Arguments that choose it. Translated code is kept in memory of this size: QEMU's own default is a gigabyte. */
export function acceleratorArgs({ name }: Accelerator): readonly string[] {
  return ["-accel", name === "kvm" ? "kvm" : "tcg,thread=multi,tb-size=128"];
}

async function tryAccelerators(home: Home, call: Call): Promise<Accelerator> {
  if (!existsSync("/dev/kvm")) {
    await runTinyGuest(home, "tcg", "max", call);
    return {
      name: "tcg",
      detail: "no KVM: there is no /dev/kvm",
      mend: "switch on virtualisation in the firmware, or nested virtualisation where this is a guest, and load the module: modprobe kvm-intel or kvm-amd",
    };
  }
  try {
    await runTinyGuest(home, "kvm", "host", call);
    return { name: "kvm", detail: "KVM" };
  } catch (error) {
    if (isFault(error, "cancelled") || isFault(error, "unsupported")) throw error;
    await runTinyGuest(home, "tcg", "max", call);
    const { reason, message } = Fault.from(error, "run a guest with KVM");
    const why = reason === "timeout" ? "a guest stands still with it" : (message.split("\n")[0] ?? "");
    return {
      name: "tcg",
      detail: `/dev/kvm is there, but does not work: ${why}`,
      mend: "this machine is probably a guest whose host does not nest; guests run without KVM, slowly",
    };
  }
}

/** Takes a tenth of a second where it works. */
const tinyGuestTimeoutMs = 5_000;

/** The guest writes 16 to a port whose device ends QEMU with twice that and one. */
const tinyGuestCode = 33;

async function runTinyGuest(home: Home, name: "kvm" | "tcg", cpu: string, call: Call): Promise<void> {
  mkdirSync(home.runDir, { recursive: true, mode: 0o755 });
  const romPath = join(home.runDir, `qemu-probe-${name}-${process.pid}.rom`);
  try {
    writeFileSync(romPath, tinyGuest());
    const argv = [qemuProgram, "-nodefaults", "-no-user-config", "-display", "none", "-M", "q35", "-m", "16M"];
    argv.push("-cpu", cpu, "-accel", name, "-bios", romPath);
    argv.push("-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-sandbox", "on");
    const options = { attempted: `run a guest with ${name.toUpperCase()}`, okCodes: [tinyGuestCode] };
    await run(argv, { ...options, timeoutMs: tinyGuestTimeoutMs, endsWithUs: true }, call);
  } finally {
    rmSync(romPath, { force: true });
  }
}

/**
 * A firmware that goes from real to protected to long mode with paging, pushes and pops a number, and tells the exit
 * device. In the assembler's words:
 *
 *     cli; xor ax,ax; mov ds,ax; lgdt cs:[gdtr]; mov eax,cr0; or eax,1; mov cr0,eax; jmp 8:prot
 *     prot: mov ax,16; mov ds,ax; mov es,ax; mov ss,ax; mov edi,0x1000; xor eax,eax; mov ecx,0x1000; rep stosd
 *     page tables at 0x1000: the first 2 MiB and the last 2 MiB below 4 GiB, as they are
 *     mov eax,cr4; or eax,0x20; mov cr4,eax; mov eax,0x1000; mov cr3,eax
 *     mov ecx,0xc0000080; rdmsr; or eax,0x100; wrmsr; mov eax,cr0; or eax,0x80000000; mov cr0,eax; jmp 24:long
 *     long: mov esp,0x8000; mov rax,0x123456789; push rax; pop rbx; cmp rbx,rax; jne fail; mov al,0x10; out 0xf4,al
 *     fail: hlt; jmp fail; gdt: null, code32, data32, code64; gdtr
 */
function tinyGuest(): Uint8Array {
  const rom = Buffer.alloc(64 * 1024, 0xf4);
  Buffer.from(tinyGuestHex, "hex").copy(rom);
  // Where a processor begins: jmp to the start of this segment.
  Buffer.from("e90d00", "hex").copy(rom, 0xfff0);
  return rom;
}

const tinyGuestHex =
  "fa31c08ed82e660f0116d8000f20c06683c8010f22c066ea1e00ffff080066b810008ed88ec08ed0bf0010000031c0b9" +
  "00100000f3abc7050010000003200000c7050020000003300000c7051820000003400000c7050030000083000000c705" +
  "f84f00008300e0ff0f20e083c8200f22e0b8001000000f22d8b9800000c00f320d000100000f300f20c00d000000800f" +
  "22c0ea9900ffff1800bc0080000048b88967452301000000505b4839c37504b010e6f4f4ebfd66900000000000000000" +
  "ffff0000009acf00ffff00000092cf00ffff0000009aaf001f00b800ffff";
