import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { backgroundCall } from "../../../base/call.ts";
import { run } from "../../../host/process.ts";
import { hostTscKhz } from "../tsc.ts";
import { findKernel, modulesDirectory } from "../guest/kernel.ts";

/**
 * A system small enough to boot within seconds where nothing is accelerated: a boot loader, the distribution's cloud kernel
 * and an initramfs of busybox that runs a script from a disk with the serial number `script`, with the serial console as
 * its input and output. The power button sends the script SIGTERM; when it ends, the machine switches itself off.
 */
export async function makeTinyGuest(directory: string): Promise<string> {
  const path = join(directory, "tiny-guest.img");
  if (existsSync(path)) return path;
  mkdirSync(directory, { recursive: true });
  const work = mkdtempSync(join(directory, "making."));
  try {
    const kernel = findKernel();
    const initramfs = await makeInitramfs(work, basename(kernel).slice("vmlinuz-".length));
    const config = [
      "DEFAULT tiny",
      "LABEL tiny",
      "  KERNEL vmlinuz",
      "  INITRD initrd",
      `  APPEND ${commandLine}`,
      "",
    ].join("\n");
    const making = join(work, "disk.img");
    writeFileSync(join(work, "syslinux.cfg"), config);
    writeFileSync(join(work, "initrd"), initramfs);
    const call = backgroundCall();
    await run(["truncate", "-s", "32M", making], {}, call);
    await run(["mkfs.vfat", "-F", "16", making], {}, call);
    await run(["mcopy", "-i", making, join(work, "syslinux.cfg"), join(work, "initrd"), "::"], {}, call);
    await run(["mcopy", "-i", making, kernel, "::vmlinuz"], {}, call);
    await run(["syslinux", "--install", making], {}, call);
    copyFileSync(making, path);
    return path;
  } finally {
    rmSync(work, { recursive: true });
  }
}

/**
 * The same system for UEFI: one program of stub, kernel, initramfs and command line, which nobody signed. With Secure Boot
 * no firmware may run it.
 */
export async function makeTinyEfiGuest(directory: string): Promise<string> {
  const path = join(directory, "tiny-efi-guest.img");
  if (existsSync(path)) return path;
  mkdirSync(directory, { recursive: true });
  const work = mkdtempSync(join(directory, "making."));
  const call = backgroundCall();
  try {
    const kernel = findKernel();
    writeFileSync(join(work, "initrd"), await makeInitramfs(work, basename(kernel).slice("vmlinuz-".length)));
    writeFileSync(join(work, "cmdline"), commandLine);
    const program = join(work, "tiny.efi");
    const sections = [
      [".cmdline", join(work, "cmdline"), "0x30000"],
      [".linux", kernel, "0x2000000"],
      [".initrd", join(work, "initrd"), "0x4000000"],
    ].flatMap(([name, file, address]) => [
      "--add-section",
      `${name}=${file}`,
      "--change-section-vma",
      `${name}=${address}`,
    ]);
    await run(["objcopy", ...sections, "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", program], {}, call);
    const making = join(work, "disk.img");
    await run(["truncate", "-s", "64M", making], {}, call);
    await run(["mkfs.vfat", "-F", "32", making], {}, call);
    await run(["mmd", "-i", making, "::EFI", "::EFI/BOOT"], {}, call);
    await run(["mcopy", "-i", making, program, "::EFI/BOOT/BOOTX64.EFI"], {}, call);
    copyFileSync(making, path);
    return path;
  } finally {
    rmSync(work, { recursive: true });
  }
}

/** A kernel that finds out for itself how fast time goes may find nothing while others use the processors, and hang. */
const tsc = hostTscKhz();
const commandLine = `console=ttyS0 quiet loglevel=0 panic=-1 memhp_default_state=online no_timer_check${
  tsc === undefined ? "" : ` tsc_early_khz=${tsc}`
}`;

/** A disk that holds the script, padded to whole sectors. */
export function writeScriptDisk(path: string, script: string): void {
  const text = Buffer.from(`${script}\n`);
  const disk = Buffer.alloc(Math.ceil(text.length / 4096) * 4096, "\n");
  text.copy(disk);
  writeFileSync(path, disk);
}

const modules = [
  "virtio_pci",
  "virtio_blk",
  "virtio_net",
  "virtio_balloon",
  "virtio_mem",
  "virtio_scsi",
  "sr_mod",
  "button",
  "evdev",
];

async function makeInitramfs(work: string, version: string): Promise<Buffer> {
  const root = join(work, "root");
  const call = backgroundCall();
  for (const name of ["bin", "dev", "proc", "sys", "tmp", "lib"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync("/bin/busybox", join(root, "bin/busybox"));
  const order = new Set<string>();
  // `TREE/lib/modules/VERSION`: modprobe wants the root of that.
  const tree = join(modulesDirectory(version), "..", "..", "..");
  for (const name of modules) {
    const { stdout } = await run(["modprobe", "-d", tree, "-S", version, "--show-depends", name], {}, call);
    for (const [, path = ""] of stdout.matchAll(/^insmod (\S+)/gm)) order.add(path);
  }
  for (const path of order) copyFileSync(path, join(root, "lib", basename(path)));
  writeFileSync(join(root, "init"), init([...order].map((path) => basename(path))), { mode: 0o755 });
  const { stdout: names } = await run(["find", "."], { cwd: root }, call);
  const archive = join(work, "initramfs.cpio");
  await run(["busybox", "cpio", "-o", "-H", "newc", "-F", archive], { cwd: root, input: names }, call);
  await run(["gzip", "-1", "-n", archive], {}, call);
  return readFileSync(`${archive}.gz`);
}

function init(names: readonly string[]): string {
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in ${names.join(" ")}; do insmod /lib/$module 2>/dev/null; done
for disk in /sys/block/vd*; do
  [ "$(cat $disk/serial 2>/dev/null)" = script ] && cat /dev/\${disk##*/} > /script
done
exec </dev/ttyS0 >/dev/ttyS0 2>&1
# Open before the script runs, so that no press is missed.
for input in /sys/class/input/event*; do
  [ "$(cat $input/device/name)" = "Power Button" ] && exec 3</dev/input/\${input##*/}
done
sh /script </dev/ttyS0 3<&- &
child=$!
(head -c 24 <&3 >/dev/null; kill -TERM $child) &
wait $child
poweroff -f
`;
}
