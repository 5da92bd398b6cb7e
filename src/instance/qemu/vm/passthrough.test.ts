import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { isFault, type Reason } from "../../../base/fault.ts";
import { type DeviceTrees, pciNodes, usbNodes } from "./passthrough.ts";

describe("devices of the host for a machine", () => {
  const card = "0000:03:00.0";
  let trees: DeviceTrees;

  beforeEach(() => {
    const root = mkdtempSync(join(tmpdir(), "devices."));
    trees = { sys: join(root, "sys"), dev: join(root, "dev") };
    mkdirSync(join(trees.dev, "vfio"), { recursive: true });
    writeFileSync(join(trees.dev, "vfio/7"), "");
  });
  afterEach(() => rmSync(join(trees.sys, ".."), { recursive: true }));

  const addPci = (address: string, facts: { driver?: string; group?: string; kind?: string }): void => {
    const device = join(trees.sys, "bus/pci/devices", address);
    mkdirSync(device, { recursive: true });
    writeFileSync(join(device, "class"), `${facts.kind ?? "0x020000"}\n`);
    if (facts.driver !== undefined) symlinkSync(`../../drivers/${facts.driver}`, join(device, "driver"));
    if (facts.group === undefined) return;
    symlinkSync(`../../kernel/iommu_groups/${facts.group}`, join(device, "iommu_group"));
    mkdirSync(join(trees.sys, "kernel/iommu_groups", facts.group, "devices", address), { recursive: true });
  };
  it("are given when vfio holds them and the rest of their group is free", () => {
    addPci(card, { driver: "vfio-pci", group: "7" });
    addPci("0000:00:01.0", { driver: "pcieport", group: "7", kind: "0x060400" });
    addPci("0000:03:00.1", { group: "7" });
    assert.deepEqual(pciNodes([card], trees), [join(trees.dev, "vfio/vfio"), join(trees.dev, "vfio/7")]);
  });

  it("are refused with what is missing", () => {
    refuses(() => pciNodes(["3:0"], trees), "invalid", /not an address/);
    refuses(() => pciNodes([card], trees), "not-found", /no such device/);
    addPci(card, { driver: "e1000e" });
    refuses(() => pciNodes([card], trees), "unsupported", /IOMMU is off/);
  });

  it("are refused while a driver of the host holds them, or one beside them", () => {
    addPci(card, { driver: "e1000e", group: "7" });
    refuses(() => pciNodes([card], trees), "precondition", /the driver e1000e holds it/);
    addPci("0000:04:00.0", { driver: "vfio-pci", group: "7" });
    refuses(() => pciNodes(["0000:04:00.0"], trees), "precondition", /same IOMMU group 7, and the host uses it/);
  });

  it("are found on the USB by who made them", () => {
    const device = join(trees.sys, "bus/usb/devices/1-4");
    mkdirSync(device, { recursive: true });
    for (const [name, value] of Object.entries({ idVendor: "1d6b", idProduct: "0002", busnum: "1", devnum: "12" })) {
      writeFileSync(join(device, name), `${value}\n`);
    }
    assert.deepEqual(usbNodes(["1d6b:0002"], trees), [join(trees.dev, "bus/usb/001/012")]);
    refuses(() => usbNodes(["1d6b:9999"], trees), "not-found", /not plugged in/);
    refuses(() => usbNodes(["keyboard"], trees), "invalid", /not vendor and product/);
  });
});

function refuses(work: () => unknown, reason: Reason, words: RegExp): void {
  assert.throws(work, (error) => {
    assert.ok(isFault(error, reason), String(error));
    assert.match(error.message, words);
    assert.ok(error.hint !== undefined);
    return true;
  });
}
