import { z } from "zod";
import type { machineFields, microvmFields } from "../guest-field.ts";
import type { InjectedText, SshKeySection } from "../model.ts";
import {
  absolutePath,
  besidePath,
  flag,
  instanceShapes,
  reading,
  size,
  text,
  type Readable,
  type Shapes,
  type Wrong,
} from "./shape.ts";

/** The shapes of what runs with a kernel of its own: see `shape.ts`. */

/** Firmware, a kernel and its user space start in no less. */
const machineMemory = size.refine(
  (bytes) => bytes >= 64 * 2 ** 20,
  "is too little for a system to start\nwrite at least 64MiB",
);

export const microvmShapes = {
  ...instanceShapes,
  kernel: absolutePath,
  "warm-start": flag,
} as const satisfies Shapes<typeof microvmFields>;

/** As the library of disk images has them. */
const libraryName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/,
    "is not the name of a disk image\nwrite it as croft image ls --disks shows it, such as debian-12-cloud.qcow2",
  );

const diskParts = z.strictObject({
  image: libraryName.optional(),
  iso: libraryName.optional(),
  blank: flag.optional(),
  size: size.refine((bytes) => bytes >= 2 ** 20, "is too small for a disk\nwrite at least 1MiB").optional(),
});

type DiskParts = z.output<typeof diskParts>;

/** What is wrong with a disk, or nothing. */
function diskProblem({ image, iso, blank = false, size: bytes }: DiskParts): string | undefined {
  if (image !== undefined && blank) return "a disk is a copy of an image or blank, not both\ntake one of the two out";
  if (image === undefined && iso === undefined && !blank)
    return 'a disk needs image, iso or blank\nfor example: { image = "debian-12-cloud.qcow2" }';
  if (blank && bytes === undefined) return 'a blank disk needs a size\nadd size = "20GiB"';
  if (image === undefined && !blank && bytes !== undefined)
    return "an iso has the size it has\nadd blank = true for an empty disk of this size beside it";
  return undefined;
}

const disk = z.union(
  [
    libraryName.transform((image): DiskParts => ({ image })),
    diskParts.superRefine((value, context) => {
      const message = diskProblem(value);
      if (message !== undefined) context.addIssue({ code: "custom", message });
    }),
  ],
  "the name of a disk image, or { image, iso, blank, size }",
);

const furtherDisk = z.union(
  [
    libraryName.transform((image): DiskParts => ({ image })),
    diskParts.superRefine((value, context) => {
      const several = value.iso !== undefined && (value.image !== undefined || value.blank === true);
      const message = several ? "a disk and a CD-ROM drive are two\ngive each a name of its own" : diskProblem(value);
      if (message !== undefined) context.addIssue({ code: "custom", message });
    }),
  ],
  "the name of a disk image, or one of { image }, { iso } and { blank, size }",
);

const diskName = reading(
  (written): string | Wrong => {
    if (written === "root" || written === "iso")
      return { wrong: `"${written}" is what field disk makes\nchoose another name` };
    return /^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$/.test(written)
      ? written
      : { wrong: `"${written}" cannot be the name of a disk\nuse lower-case letters, digits and -, at most 20` };
  },
  { pattern: "^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$" },
);

const injectedText = z.union(
  [
    besidePath.transform((path): InjectedText => ({ path })),
    z.strictObject({ secret: z.string() }).transform((value): InjectedText => value),
  ],
  "a path beside the stack file, or { secret = name }",
);

const cloudInit = z.union(
  [
    z.literal(false),
    z.strictObject({
      "user-data": injectedText.optional(),
      "meta-data": injectedText.optional(),
      "network-config": injectedText.optional(),
    }),
  ],
  "false, or { user-data, meta-data, network-config }",
);

const sshKey = reading((written): SshKeySection | Wrong => {
  if (/^(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\n]*)?$/.test(written)) return { key: written };
  if (/PRIVATE KEY/.test(written)) return { wrong: "this is a private key\nwrite the public one, which ends in .pub" };
  const read = besidePath.safeParse(written);
  if (read.success && !written.includes(" ")) return { path: read.data };
  return { wrong: `"${written}" is neither a public key nor a path beside the stack file\nwrite one such as ./id.pub` };
}, {});

const count = z.number().int().min(1).max(1024).optional();

export const machineShapes = {
  disk,
  disks: z.record(diskName, furtherDisk),
  boot: z.array(z.string()),
  firmware: z.enum(["bios", "uefi", "uefi-secure"]),
  tpm: flag,
  "cloud-init": cloudInit,
  "ssh-keys": z.array(sshKey),
  cpus: instanceShapes.cpus,
  memory: machineMemory,
  "cpu-model": text.regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
    "is not a processor model\nwrite host, max or one that qemu-system-x86_64 -cpu help names",
  ),
  topology: z.strictObject({ sockets: count, cores: count, threads: count }),
  hugepages: flag,
  balloon: flag,
  pci: z.array(
    z
      .string()
      .regex(
        /^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/,
        "is not a PCI address\nwrite it as lspci -D does: 0000:03:00.0",
      ),
  ),
  usb: z.array(
    z
      .string()
      .regex(/^[0-9a-f]{4}:[0-9a-f]{4}$/, "is not a USB device\nwrite vendor and product as lsusb does: 1d6b:0002"),
  ),
  hostname: instanceShapes.hostname,
  networks: instanceShapes.networks,
  publish: instanceShapes.publish,
  restart: instanceShapes.restart,
  health: instanceShapes.health,
  needs: instanceShapes.needs,
  replicas: instanceShapes.replicas,
  "stop-grace": instanceShapes["stop-grace"],
  labels: instanceShapes.labels,
  protect: instanceShapes.protect,
  log: instanceShapes.log,
  update: instanceShapes.update,
} as const satisfies Shapes<typeof machineFields>;

export type MicrovmInput = Readable<typeof microvmShapes>;
export type MachineInput = Readable<typeof machineShapes>;
export type DiskInput = NonNullable<MachineInput["disk"]>;
