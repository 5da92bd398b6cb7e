import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../../base/id.ts";
import { machineDefaults } from "../default.ts";
import type { Generation, InstanceSection } from "../model.ts";
import { alterationOf, type Alteration } from "./alter.ts";
import { diffGenerations } from "./diff.ts";
import { expand } from "./expand.ts";
import { generationOf } from "./stack.fixture.ts";
import type { DesiredInstance, ObservedInstance } from "./step.ts";

const root = { name: "root", from: { kind: "image", image: "debian.qcow2" } } as const;
const tools = { name: "tools", from: { kind: "iso", image: "tools.iso" } } as const;
const more = { name: "more", from: { kind: "image", image: "more.qcow2" } } as const;
const section: Partial<InstanceSection> = {
  ...machineDefaults,
  cloudInit: { kind: "files", userData: { path: "user-data" }, metaData: { secret: "meta" } },
  sshKeys: [{ path: "key.pub" }],
  passthrough: { pci: [], usb: [] },
  disks: [root, tools, more],
};
const pins = {
  files: { "user-data": sha256("1"), "key.pub": sha256("1") },
  secrets: { meta: "1" },
  diskImages: { "debian.qcow2": sha256("1"), "tools.iso": sha256("1"), "more.qcow2": sha256("1") },
};

function machine(pinned: Partial<Generation>, parts: Partial<InstanceSection> = {}): DesiredInstance {
  const [instance] = expand(
    { ...generationOf({ m: { ...section, ...parts } }), ...pins, ...pinned },
    new Set(),
  ).instances;
  assert.ok(instance !== undefined);
  return instance;
}

/** A machine that runs as it was made, whose disks and nics can be changed. */
function running({ id, section, secrets, files, diskImages = {} }: DesiredInstance): ObservedInstance {
  const state = { status: "running", health: "none", intact: true, attached: true, plugs: true } as const;
  return { id, section, secrets, files, diskImages, ...state };
}

function altered(pinned: Partial<Generation>, parts: Partial<InstanceSection> = {}): Alteration | undefined {
  return alterationOf(running(machine({})), machine(pinned, parts));
}

test("other content of what a machine is told is a change of it, and needs a restart", () => {
  assert.equal(altered({}), undefined);
  for (const [pinned, field, why] of [
    [{ files: { ...pins.files, "user-data": sha256("2") } }, "cloudInit", "content of user-data changed"],
    [{ files: { ...pins.files, "key.pub": sha256("2") } }, "sshKeys", "content of key.pub changed"],
    [{ secrets: { meta: "2" } }, "cloudInit", "value of secret meta changed"],
    [{ diskImages: { ...pins.diskImages, "tools.iso": sha256("2") } }, "disks", "content of tools.iso changed"],
  ] as const) {
    assert.deepEqual(altered(pinned), { fields: [field], cost: "restart", why });
  }
});

test("a difference of generations tells other content of disk images and ISOs", () => {
  const older = { ...generationOf({ m: section }), ...pins };
  const newer = { ...older, diskImages: { ...pins.diskImages, "tools.iso": sha256("2") } };
  assert.deepEqual(diffGenerations(older, newer), [
    { subject: "vm.m", kind: "changed", changes: [{ field: "content of tools.iso" }] },
  ]);
});

test("a disk stays what it began as, whatever its image is today", () => {
  assert.equal(altered({ diskImages: { ...pins.diskImages, "more.qcow2": sha256("2") } }), undefined);
});

test("another medium in a drive needs a restart, another drive does not", () => {
  const swapped = { ...tools, from: { kind: "iso", image: "other.iso" } } as const;
  assert.equal(altered({}, { disks: [root, swapped, more] })?.cost, "restart");
  assert.equal(altered({}, { disks: [root, tools, more, { ...swapped, name: "second" }] })?.cost, "hot");
});

test("what was not noted when it was made is taken as unchanged", () => {
  const { secrets: _, files: __, diskImages: ___, ...unnoted } = running(machine({}));
  const pinned = { files: { "user-data": sha256("2"), "key.pub": sha256("2") }, secrets: { meta: "2" } };
  assert.equal(alterationOf(unnoted, machine(pinned)), undefined);
});
