import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { Fault } from "../../../base/fault.ts";
import { errnoOf } from "../../../host/errno.ts";

/** Where the kernel shows devices; another place in tests. */
export interface DeviceTrees {
  readonly sys: string;
  readonly dev: string;
}

export const hostTrees: DeviceTrees = { sys: "/sys", dev: "/dev" };

/**
 * The device nodes that QEMU needs to be given these PCI devices. Says clearly what is missing: `not-found` for a device
 * that is not there, `unsupported` without an IOMMU, `precondition` for one that a driver of the host still holds, or that
 * shares its group with one that the host uses.
 */
export function pciNodes(addresses: readonly string[], trees: DeviceTrees = hostTrees): string[] {
  if (addresses.length === 0) return [];
  const nodes = new Set([join(trees.dev, "vfio/vfio")]);
  for (const address of addresses) {
    const what = `hand over PCI device ${address}`;
    if (!/^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.test(address)) {
      throw new Fault("invalid", `${what}: not an address`, { hint: "as lspci -D shows it: 0000:03:00.0" });
    }
    const device = join(trees.sys, "bus/pci/devices", address);
    if (!existsSync(device)) {
      throw new Fault("not-found", `${what}: this machine has no such device`, { hint: "lspci -D lists them" });
    }
    const group = linkName(join(device, "iommu_group"));
    if (group === undefined) {
      throw new Fault("unsupported", `${what}: the IOMMU is off, so a guest could reach all memory with it`, {
        hint: "switch it on in the firmware (VT-d, AMD-Vi), and on the kernel's command line: intel_iommu=on",
      });
    }
    for (const member of membersOf(trees, group)) requireFree(trees, member, addresses, what, group);
    const node = join(trees.dev, "vfio", group);
    if (!existsSync(node)) {
      throw new Fault("unsupported", `${what}: ${node} is not there`, { hint: "load the driver: modprobe vfio-pci" });
    }
    nodes.add(node);
  }
  return [...nodes];
}

/** All of a group can reach each other's memory, so all of it has to be out of the host's hands. */
function requireFree(
  trees: DeviceTrees,
  member: string,
  handedOver: readonly string[],
  what: string,
  group: string,
): void {
  const device = join(trees.sys, "bus/pci/devices", member);
  // Bridges stay with the host; the kernel sees to it that they do no harm.
  if (readClass(device).startsWith("0x0604")) return;
  const driver = linkName(join(device, "driver"));
  if (handedOver.includes(member)) {
    if (driver === "vfio-pci") return;
    throw new Fault(
      "precondition",
      `${what}: ${driver === undefined ? "no driver" : `the driver ${driver}`} holds it, not vfio-pci`,
      {
        hint: `bind it: echo vfio-pci > /sys/bus/pci/devices/${member}/driver_override; echo ${member} > /sys/bus/pci/drivers_probe (after unbinding it)`,
      },
    );
  }
  if (driver === undefined || driver === "vfio-pci") return;
  throw new Fault(
    "precondition",
    `${what}: ${member} is in the same IOMMU group ${group}, and the host uses it (${driver})`,
    {
      hint: `hand over ${member} as well, or bind it to vfio-pci`,
    },
  );
}

/** The device nodes of USB devices by `vendor:product`. `not-found` when one is not plugged in. */
export function usbNodes(devices: readonly string[], trees: DeviceTrees = hostTrees): string[] {
  return devices.map((wanted) => {
    const what = `hand over USB device ${wanted}`;
    if (!/^[0-9a-f]{4}:[0-9a-f]{4}$/.test(wanted)) {
      throw new Fault("invalid", `${what}: not vendor and product`, { hint: "as lsusb shows it: 1d6b:0002" });
    }
    for (const name of entriesOf(join(trees.sys, "bus/usb/devices"))) {
      const device = join(trees.sys, "bus/usb/devices", name);
      if (`${readWord(device, "idVendor")}:${readWord(device, "idProduct")}` !== wanted) continue;
      const bus = readWord(device, "busnum").padStart(3, "0");
      return join(trees.dev, "bus/usb", bus, readWord(device, "devnum").padStart(3, "0"));
    }
    throw new Fault("not-found", `${what}: it is not plugged in`, { hint: "lsusb lists what is" });
  });
}

function membersOf(trees: DeviceTrees, group: string): string[] {
  return entriesOf(join(trees.sys, "kernel/iommu_groups", group, "devices"));
}

function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

function linkName(path: string): string | undefined {
  try {
    return basename(readlinkSync(path));
  } catch (error) {
    if (["ENOENT", "EINVAL"].includes(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
}

function readClass(device: string): string {
  return readWord(device, "class");
}

function readWord(directory: string, name: string): string {
  try {
    return readFileSync(join(directory, name), "utf8").trim();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}
