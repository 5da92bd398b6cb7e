import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { isFault } from "../../base/fault.ts";
import type { PortSpec } from "../contract.ts";
import { Records } from "./record.ts";
import { type PortRecord, SharedResolvers } from "./shared-resolver.ts";
import { instance, network } from "./test-host.ts";

const front = network("front", "10.86.1.0/24");
const back = network("back", "10.86.2.0/28");
const both = instance("both", [
  [front, "10.86.1.5"],
  [back, "10.86.2.5"],
]);
const single = instance("single", [[front, "10.86.1.6"]]);

let directory: string;
let ports: Records<PortRecord>;
let shared: SharedResolvers;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "shared-"));
  ports = new Records(join(directory, "port"));
  shared = new SharedResolvers(new Records(join(directory, "several")), ports);
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

function attach(port: PortSpec): void {
  ports.put(port.id, shared.remembering(port, ports.get(port.id)));
}

test("a set of networks has one resolver, in whatever order they are, and those in all of them may ask it", () => {
  const resolver = shared.add(front, [back.id, front.id], false);
  assert.deepEqual(resolver, { address: "10.86.1.254", networks: [front.id, back.id], internal: false });
  assert.equal(shared.find([back.id, front.id]), resolver);
  assert.equal(shared.find([front.id]), undefined);
  assert.equal(shared.isAsked(resolver), false);
  attach(both);
  attach(single);
  assert.equal(shared.isAsked(resolver), true);
  assert.deepEqual(shared.withClients(), [{ address: "10.86.1.254", clients: ["10.86.1.5"] }]);
});

test("a machine that leaves a network may ask the one it was told of, until it has no way to it", () => {
  const resolver = shared.add(front, [front.id, back.id], false);
  attach(both);
  const [first, second] = both.nics;
  assert.ok(first !== undefined && second !== undefined);
  for (let times = 0; times < 2; times += 1) {
    attach({ ...both, nics: [first] });
    assert.deepEqual(shared.withClients(), [{ address: "10.86.1.254", clients: ["10.86.1.5"] }]);
  }
  attach(both);
  assert.deepEqual(ports.get(both.id), both, "in all of them again, there is nothing to remember");
  attach({ ...both, nics: [second] });
  assert.equal(shared.isAsked(resolver), false);
});

test("one that became another meanwhile is not removed, and addresses end", () => {
  const resolver = shared.add(back, [front.id, back.id], false);
  shared.setInternal(resolver, true);
  assert.equal(shared.remove(resolver), false);
  assert.throws(
    () => shared.add(back, [back.id, network("other", "10.86.3.0/24").id], false),
    (error) => isFault(error, "exhausted"),
  );
  const [changed] = shared.all();
  assert.ok(changed !== undefined && shared.remove(changed));
  assert.deepEqual(shared.all(), []);
});
