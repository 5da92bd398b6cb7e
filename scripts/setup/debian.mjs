// Programs that Croft stands on, from Debian's own packages; each is installed only when it is missing.
import { spawnSync } from "node:child_process";
import { accessSync, constants, readFileSync } from "node:fs";
import { join } from "node:path";
import { say } from "./node.mjs";

/** Package → a program or file of it. What `npm start` needs. */
export const runtimePackages = {
  crun: "crun",
  runc: "runc",
  conmon: "conmon",
  nftables: "nft",
  iproute2: "ip",
  "dnsmasq-base": "dnsmasq",
  mmdebstrap: "mmdebstrap",
  "busybox-static": "busybox",
  "erofs-utils": "fsck.erofs",
  e2fsprogs: "mkfs.ext4",
  "util-linux": "unshare",
  "qemu-system-x86": "qemu-system-x86_64",
  "qemu-utils": "qemu-img",
  ovmf: "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
  swtpm: "swtpm",
  "swtpm-tools": "swtpm_setup",
  gpgv: "gpgv",
  "xz-utils": "xz",
  "dropbear-bin": "dropbear",
  kmod: "depmod",
  "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
};

/** What the tests need besides: a real registry to talk to, and tools that look at our work from outside. */
export const testPackages = {
  "docker-registry": "docker-registry",
  "apache2-utils": "htpasswd",
  xfsprogs: "xfs_io",
  strace: "strace",
  slirp4netns: "slirp4netns",
  socat: "socat",
  curl: "curl",
  attr: "getfattr",
  zstd: "zstd",
  procps: "ps",
  openssl: "openssl",
  bsdutils: "script",
  "docker.io": "dockerd",
  podman: "podman",
  containerd: "containerd",
  "containernetworking-plugins": "/usr/lib/cni/bridge",
  syslinux: "syslinux",
  mtools: "mcopy",
  dosfstools: "mkfs.vfat",
  binutils: "objcopy",
  fdisk: "sfdisk",
  "openssh-client": "ssh",
  "systemd-boot-efi": "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
  gpg: "gpg",
  xorriso: "xorriso",
};

/** What the benchmark compares with besides. */
export const benchPackages = {
  "libvirt-daemon-system": "libvirtd",
  "libvirt-clients": "virsh",
};

/** Installs what is missing, saying so. Off Debian, says exactly what to install. */
export function installPackages(packages) {
  const missing = Object.keys(packages).filter((name) => !present(packages[name]));
  if (missing.length === 0) return;
  if (!isDebian()) {
    const programs = missing.map((name) => packages[name] ?? name).join(", ");
    throw new Error(
      `this is neither Debian nor Ubuntu, so please install these programs and run the same command again: ${programs}\n(on Debian they come with: ${missing.join(" ")})`,
    );
  }
  say(`installing Debian packages: ${missing.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  for (const args of [
    ["update", "-q"],
    ["install", "-y", "-q", "--no-install-recommends", ...missing],
  ]) {
    const { status, stdout, stderr } = spawnSync("apt-get", args, { env, encoding: "utf8", maxBuffer: 64 * 2 ** 20 });
    if (status !== 0) throw new Error(`apt-get ${args.join(" ")} failed:\n${stdout}${stderr}`);
  }
}

function isDebian() {
  try {
    const release = readFileSync("/etc/os-release", "utf8");
    return /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(release);
  } catch {
    return false;
  }
}

function present(program) {
  const places = program.startsWith("/") ? [""] : [...(process.env.PATH ?? "").split(":"), "/usr/sbin", "/sbin"];
  return places.some((place) => {
    try {
      accessSync(join(place, program), constants.R_OK);
      return true;
    } catch {
      return false;
    }
  });
}
