import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { backgroundCall } from "../../../base/call.ts";
import { run } from "../../../host/process.ts";
import { hostTscKhz } from "../tsc.ts";

/** What a small Debian server of today is made of. */
const packages = [
  "linux-image-cloud-amd64",
  "systemd-sysv",
  "udev",
  "dbus",
  "iproute2",
  "cloud-init",
  "e2fsprogs",
  "openssh-server",
  "qemu-guest-agent",
  "shim-signed",
  "grub-efi-amd64-signed",
];

/** For mmdebstrap, which runs it with the root as its argument. */
const smallInitramfs = [
  'mkdir -p "$1/etc/initramfs-tools/conf.d"',
  'printf "MODULES=list\\nCOMPRESS=lz4\\nRESUME=none\\n" > "$1/etc/initramfs-tools/conf.d/small"',
  'printf "virtio_pci\\nvirtio_blk\\next4\\n" > "$1/etc/initramfs-tools/modules"',
].join(" && ");

const mebibyte = 2 ** 20;
const espBytes = 32 * mebibyte;
const rootBytes = 1400 * mebibyte;
const startBytes = mebibyte;

/**
 * A disk image with Debian, made of Debian's own packages: UEFI with its signed loaders, the cloud kernel, systemd,
 * cloud-init, ssh and the guest agent. It takes minutes, so it is made once in `directory`. Returns its path; qcow2.
 */
export async function makeDebianGuest(directory: string): Promise<string> {
  const path = join(directory, "debian-guest.qcow2");
  if (existsSync(path)) return path;
  mkdirSync(directory, { recursive: true });
  const work = mkdtempSync(join(directory, "making."));
  const call = backgroundCall();
  try {
    const root = join(work, "root");
    await run(
      [
        "mmdebstrap",
        "--variant=minbase",
        "--quiet",
        `--include=${packages.join(",")}`,
        // An initramfs of what such a machine needs is made and unpacked in a tenth of the time.
        `--essential-hook=${smallInitramfs}`,
        // What is lost when the power fails is made again.
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
        root,
      ],
      { timeoutMs: 900_000, maxOutputBytes: 64 * mebibyte },
      call,
    );
    configure(root);
    const image = join(work, "disk.raw");
    await run(["truncate", "-s", String(startBytes + espBytes + rootBytes + startBytes), image], {}, call);
    const table = [
      "label: gpt",
      `start=${startBytes / 512}, size=${espBytes / 512}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B`,
      `size=${rootBytes / 512}, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4`,
      "",
    ].join("\n");
    await run(["sfdisk", "--quiet", image], { input: table }, call);
    await makeEsp(root, join(work, "esp.img"));
    const rootImage = join(work, "root.img");
    await run(["truncate", "-s", String(rootBytes), rootImage], {}, call);
    await run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, rootImage], { timeoutMs: 600_000 }, call);
    const place = async (source: string, offset: number): Promise<void> => {
      const to = [`of=${image}`, "bs=1M", `seek=${offset / mebibyte}`, "conv=notrunc,sparse", "status=none"];
      await run(["dd", `if=${source}`, ...to], { timeoutMs: 600_000 }, call);
    };
    await place(join(work, "esp.img"), startBytes);
    await place(rootImage, startBytes + espBytes);
    const made = join(work, "disk.qcow2");
    await run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, made], { timeoutMs: 600_000 }, call);
    if (statSync(made).size < 100 * mebibyte) throw new Error("the image is too small to be a Debian system");
    renameSync(made, path);
    return path;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** What cloud-init does at a boot, without what takes minutes where nothing is accelerated: three kinds of long keys. */
const cloudConfig = `datasource_list: [ NoCloud ]
ssh_genkeytypes: [ ed25519 ]
cloud_init_modules: [ set_hostname, update_hostname, users-groups, ssh ]
cloud_config_modules: []
cloud_final_modules: []
system_info:
  network:
    renderers: [ networkd ]
`;

/**
 * Work of a long-lived server, stages of cloud-init that have nothing left to do (each of them is a Python that starts), and
 * what nobody in this guest uses: where nothing is accelerated, every program that starts costs a second.
 */
const masked = [
  "apt-daily.timer",
  "apt-daily-upgrade.timer",
  "cloud-config.service",
  "cloud-final.service",
  "cloud-init-hotplugd.socket",
  "dev-hugepages.mount",
  "dev-mqueue.mount",
  "dpkg-db-backup.timer",
  "e2scrub_all.timer",
  "e2scrub_reap.service",
  "fstrim.timer",
  "getty@tty1.service",
  "modprobe@configfs.service",
  "modprobe@dm_mod.service",
  "modprobe@drm.service",
  "modprobe@efi_pstore.service",
  "modprobe@fuse.service",
  "modprobe@loop.service",
  "proc-sys-fs-binfmt_misc.automount",
  "sys-fs-fuse-connections.mount",
  "sys-kernel-config.mount",
  "sys-kernel-debug.mount",
  "sys-kernel-tracing.mount",
  "systemd-binfmt.service",
  "systemd-boot-system-token.service",
  "systemd-firstboot.service",
  "systemd-fsck-root.service",
  "systemd-journal-flush.service",
  "systemd-pcrphase-initrd.service",
  "systemd-pcrphase-sysinit.service",
  "systemd-pcrphase.service",
  "systemd-pstore.service",
  "systemd-resolved.service",
  "systemd-sysusers.service",
  "systemd-update-utmp-runlevel.service",
  "systemd-update-utmp.service",
];

const enabled = [
  ["multi-user.target", "systemd-networkd.service"],
  ["network-online.target", "systemd-networkd-wait-online.service"],
] as const;

function configure(root: string): void {
  writeFileSync(join(root, "etc/fstab"), "LABEL=root / ext4 defaults,noatime 0 0\n");
  writeFileSync(join(root, "etc/cloud/cloud.cfg.d/90-test.cfg"), cloudConfig);
  // cloud-init can do without it, and validates nothing then, which takes it much of its time.
  rmSync(join(root, "usr/lib/python3/dist-packages/jsonschema"), { recursive: true });
  const units = join(root, "etc/systemd/system");
  for (const unit of masked) symlinkSync("/dev/null", join(units, unit));
  for (const [target, unit] of enabled) {
    mkdirSync(join(units, `${target}.wants`), { recursive: true });
    symlinkSync(`/lib/systemd/system/${unit}`, join(units, `${target}.wants`, unit));
  }
  writeFileSync(join(root, "etc/hostname"), "localhost\n");
  rmSync(join(root, "etc/machine-id"), { force: true });
  // Empty: it gets one of its own. "uninitialized" would have all units enabled anew at the first boot.
  writeFileSync(join(root, "etc/machine-id"), "");
}

/** A kernel that has to find out for itself how fast time goes takes it wrong where others use the processors, too. */
const tscKhz = hostTscKhz();
const clock = tscKhz === undefined ? "" : ` tsc_early_khz=${tscKhz} tsc=reliable`;

/** The loaders signed for Secure Boot: the firmware knows who signed shim, and shim knows Debian. */
async function makeEsp(root: string, path: string): Promise<void> {
  const call = backgroundCall();
  await run(["truncate", "-s", String(espBytes), path], {}, call);
  await run(["mkfs.vfat", "-F", "16", "-n", "ESP", path], {}, call);
  await run(["mmd", "-i", path, "::EFI", "::EFI/BOOT", "::EFI/debian"], {}, call);
  const copy = async (from: string, to: string): Promise<void> => {
    await run(["mcopy", "-i", path, from, `::EFI/${to}`], {}, call);
  };
  await copy(join(root, "usr/lib/shim/shimx64.efi.signed"), "BOOT/BOOTX64.EFI");
  await copy(join(root, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"), "BOOT/grubx64.efi");
  const config = join(root, "../grub.cfg");
  writeFileSync(
    config,
    [
      "search --no-floppy --label root --set=root",
      `linux /vmlinuz root=LABEL=root rw console=ttyS0 quiet no_timer_check mitigations=off rcupdate.rcu_expedited=1${clock}`,
      "initrd /initrd.img",
      "boot",
      "",
    ].join("\n"),
  );
  await copy(config, "debian/grub.cfg");
}
