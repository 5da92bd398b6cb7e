import { instanceFields, type InstanceField } from "./field.ts";

/** What only a microVM has, or has otherwise than a container. */
export const guestFields = {
  cpus: {
    ...instanceFields.cpus,
    default: "1",
    doc: "How much processor time it may use, in cores: the guest has as many processors, rounded up.",
    change: "live",
  },
  memory: {
    ...instanceFields.memory,
    default: "what a guest of 512 MiB has",
    doc: "How much memory the program may use, as for a container. The guest is made larger by what its kernel needs, and takes of the host what it touches.",
    change: "live",
  },
  kernel: {
    type: "absolute path",
    default: "the distribution's",
    example: 'kernel = "/boot/vmlinuz-6.1.0-18-cloud-amd64"',
    doc: "A kernel of the host to boot instead; its modules are looked for beneath /lib/modules.",
    member: "kernelPath",
    change: "recreate",
  },
  "warm-start": {
    type: "boolean",
    default: "true",
    example: "warm-start = false",
    doc: "It may begin with the memory of an earlier one of the same image, kernel and size, with an address, a name and random numbers of its own. Turn it off for a program that must see its own boot.",
    member: "warmStart",
    change: "recreate",
  },
} as const satisfies Record<string, InstanceField>;

/** Fields of `[microvm.x]`: all of a container's, since it runs the same image. */
export const microvmFields = { ...instanceFields, ...guestFields } as const;

const { hostname, networks, publish, restart, health, needs, replicas, labels, protect, log, update } = instanceFields;

/** Fields of `[vm.x]`, a full machine. What runs in it is on its disks, so it has none of an image's. */
export const machineFields = {
  disk: {
    type: "disk image, or table with `image`, `iso`, `blank` and `size`",
    default: "required",
    example: 'disk = { image = "debian-12-cloud.qcow2", size = "20GiB" }',
    doc: "Its first disk, called `root`: a copy of a disk image of this machine's library (see `croft image import`), made at once whatever its size, or an empty one with `blank = true`. `size` can grow. An `iso` lies in a CD-ROM drive called `iso`, beside the disk if one is asked for. Another image is another machine; the disks of the old one are kept until `croft up --prune-volumes`.",
    member: "disks",
    change: "live",
  },
  disks: {
    type: "table: name = disk, as in `disk`",
    default: "none",
    example: 'disks = { data = { blank = true, size = "5GiB" }, drivers = { iso = "virtio-win.iso" } }',
    doc: "More disks and CD-ROM drives. One that leaves the file is unplugged and kept, until `croft up --prune-volumes`. A disk cannot become another image or an empty one: give the new one another name.",
    member: "disks",
    change: "live",
  },
  boot: {
    type: "list of disk names",
    default: "root, then iso, then the others in the order of the file",
    example: 'boot = ["iso", "root"]',
    doc: "What the firmware tries to start from, in this order, before the others. A change is heeded at the next start.",
    member: "disks",
    change: "live",
  },
  firmware: {
    type: "`bios`, `uefi` or `uefi-secure`",
    default: '"bios"',
    example: 'firmware = "uefi"',
    doc: "`uefi-secure` starts only what is signed by a key that the usual vendors trust.",
    member: "firmware",
    change: "restart",
  },
  tpm: {
    type: "boolean",
    default: "false",
    example: "tpm = true",
    doc: "A TPM 2.0 of its own, made by software.",
    member: "tpm",
    change: "restart",
  },
  "cloud-init": {
    type: "`false`, or table with `user-data`, `meta-data`, `network-config`: a path beside the stack file or { secret }",
    default: "made from the instance's name, address and ssh-keys",
    example: 'cloud-init = { user-data = "./user-data.yaml" }',
    doc: "What cloud-init in the guest is told at its first boot, as a NoCloud drive. What is not given is made: name, addresses, name servers, keys.",
    member: "cloudInit",
    change: "restart",
  },
  "ssh-keys": {
    type: "list of public keys, or of paths beside the stack file",
    default: "none",
    example: 'ssh-keys = ["./id_ed25519.pub"]',
    doc: "Who may log in over ssh as the image's default user. Cloud-init puts them there, also beside a user-data of yours; beside a meta-data of yours write them into that.",
    member: "sshKeys",
    change: "restart",
  },
  cpus: {
    ...instanceFields.cpus,
    default: "1",
    doc: "How many processors the machine has, and how much of the host's time they may use: 1.5 are two that get the time of one and a half.",
    change: "live",
  },
  memory: {
    ...instanceFields.memory,
    default: '"1GiB"',
    example: 'memory = "2GiB"',
    doc: "How much memory the machine has, at least 64 MiB. With a balloon it can be less than it was started with while it runs.",
    change: "live",
  },
  "cpu-model": {
    type: "`host`, `max` or a model that QEMU knows",
    default: "the best this host has",
    example: 'cpu-model = "Skylake-Server"',
    doc: "What its processors claim to be.",
    member: "cpuModel",
    change: "restart",
  },
  topology: {
    type: "table with `sockets`, `cores` and `threads`",
    default: "one socket, with a core for each processor",
    example: "topology = { sockets = 1, cores = 2, threads = 1 }",
    doc: "How its processors are arranged. Their product is `cpus`, rounded up; each is 1 when left out.",
    member: "topology",
    change: "restart",
  },
  hugepages: {
    type: "boolean",
    default: "false",
    example: "hugepages = true",
    doc: "Its memory is of huge pages, which the host must have set aside.",
    member: "hugepages",
    change: "restart",
  },
  balloon: {
    type: "boolean",
    default: "true",
    example: "balloon = false",
    doc: "Gives the guest a balloon, by which its memory is changed while it runs.",
    member: "balloon",
    change: "restart",
  },
  pci: {
    type: "list of PCI addresses",
    default: "none",
    example: 'pci = ["0000:03:00.0"]',
    doc: "Devices of the host that are handed to the machine. The host needs an IOMMU, and everything in the device's group goes along.",
    member: "passthrough",
    change: "restart",
  },
  usb: {
    type: "list of vendor:product",
    default: "none",
    example: 'usb = ["1d6b:0002"]',
    doc: "USB devices of the host that are handed to the machine.",
    member: "passthrough",
    change: "restart",
  },
  hostname: {
    ...hostname,
    doc: "What cloud-init calls the machine, unless a meta-data of yours does. Others find it by the names of the section and the instance.",
    change: "restart",
  },
  networks: {
    ...networks,
    doc: "Which networks it has a nic in. The first that is not internal carries its way out.",
    change: "live",
  },
  publish,
  restart: {
    ...restart,
    default: '"on-failure"',
    doc: "Whether it is started again when it ends or its health check fails, with growing pauses. A machine that shuts itself down has ended well.",
  },
  health: {
    ...health,
    doc: "How to see that it works. `http` expects a status from 200 to 399, `tcp` an open port, `exec` the exit code 0 of a program that the guest agent runs. `interval` is 5s when left out, `timeout` 3s, `retries` 3, `start-period` 0s.",
  },
  needs,
  replicas: {
    ...replicas,
    doc: "How many of it there are, from 0 to 1000, each with disks of its own. Fewer removes those with the highest numbers.",
  },
  "stop-grace": {
    ...instanceFields["stop-grace"],
    default: '"60s"',
    doc: "How long it may take to shut down, once it was asked to as by its power button, before it is turned off.",
  },
  labels,
  protect: { ...protect, doc: "A plan that would remove it for good is refused until this is turned off and applied." },
  log: { ...log, doc: "How much of what it writes to its serial console is kept.", change: "restart" },
  update: {
    ...update,
    default: '{ order = "stop-first", healthy-within = "5m" }',
  },
} as const satisfies Record<string, InstanceField>;

/** Fields of a container that mean nothing for a machine: why, and the mend. */
export const foreignToMachines: Readonly<Record<string, { readonly why: string; readonly mend: string }>> = {
  image: {
    why: "a vm starts from disks",
    mend: 'write disk = { image = "debian-12-cloud.qcow2" }; what runs an image of a registry is a [microvm.x]',
  },
  ...foreign(["command", "entrypoint", "env", "env-file", "user", "workdir"], {
    why: "what a vm runs is on its disks",
    mend: "tell it by cloud-init; what runs a program of an image is a [microvm.x]",
  }),
  ...foreign(["volumes", "tmpfs"], {
    why: "a vm has disks of its own",
    mend: 'write disks = { data = { blank = true, size = "5GiB" } }',
  }),
  files: {
    why: "nothing is put into a vm's disks from outside",
    mend: "let cloud-init write it: write_files in user-data",
  },
  ...foreign(["pids", "capabilities", "read-only"], {
    why: "that is up to the system in the vm",
    mend: "leave it out",
  }),
  "stop-signal": { why: "a vm is asked to shut down as by its power button", mend: "leave it out" },
};

function foreign<Why>(names: readonly string[], why: Why): Record<string, Why> {
  return Object.fromEntries(names.map((name) => [name, why]));
}
