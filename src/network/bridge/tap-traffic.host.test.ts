import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { instanceId } from "../../base/id.ts";
import { listOwned } from "./owned.ts";
import { instance } from "./test-host.ts";
import { ask, serve } from "./test-traffic.ts";
import { at, front, plug, testHost, trafficSuite, unplug } from "./traffic-suite.ts";

const call = backgroundCall();

trafficSuite("tap");

test("a machine that is detached answers no more, though its process goes on, and leaves nothing", async () => {
  const late = { ...instance("late", [[front, "10.86.1.8"]]), kind: "tap" as const };
  const server = serve(await plug(late), 80, "late");
  assert.equal(await ask(at("web-2"), "10.86.1.8", 80), "late 10.86.1.6");
  await testHost().driver.detach(late.id, call);
  assert.ok(!listOwned(testHost().home).some((one) => one.includes("late")));
  assert.equal(await ask(at("web-2"), "10.86.1.8", 80), "nothing");
  server.close();
  await unplug("late");
  const successor = { ...late, id: instanceId("shop", "late", 1, "fedcba98") };
  const next = serve(await plug(successor), 80, "successor");
  assert.equal(await ask(at("web-2"), "10.86.1.8", 80), "successor 10.86.1.6", "by the same hardware address");
  next.close();
  await unplug("late");
  await testHost().driver.detach(successor.id, call);
});

test("a machine that starts anew finds its tap as it was", async () => {
  const again = { ...instance("again", [[front, "10.86.1.9"]]), kind: "tap" as const };
  for (const life of ["first", "second"]) {
    const server = serve(await plug(again), 80, life);
    assert.equal(await ask(at("web-2"), "10.86.1.9", 80), `${life} 10.86.1.6`);
    server.close();
    await unplug("again");
    const { ports } = await testHost().driver.list(call);
    assert.deepEqual(
      ports.find(({ id }) => id === again.id),
      { id: again.id, intact: true },
      "also with nobody behind it",
    );
  }
  await testHost().driver.detach(again.id, call);
});

test("only its owner may open a tap, and the owner changes with the next attachment", async () => {
  const owned = { ...instance("owned", [[front, "10.86.1.10"]]), kind: "tap" as const };
  for (const [uid, other] of [
    [4711, 4712],
    [4712, 4711],
  ] as const) {
    const attachment = await testHost().driver.attach({ ...owned, tapOwnerUid: uid }, call);
    assert.ok(attachment.kind === "tap");
    const [{ name } = { name: "" }] = attachment.taps;
    assert.equal(opens(name, uid), true);
    assert.equal(opens(name, other), false);
  }
  await testHost().driver.detach(owned.id, call);
});

function opens(name: string, uid: number): boolean {
  const open = ["socat", "-u", `TUN,tun-type=tap,iff-no-pi,tun-name=${name}`, "OPEN:/dev/null"];
  const { stderr } = spawnSync("setpriv", [`--reuid=${uid}`, "--regid=65534", "--clear-groups", "--", ...open]);
  // Once it is open, socat wants to change the link itself, which only root may.
  const refused = /ioctl\([0-9]+, (\w+),/.exec(stderr.toString())?.[1];
  assert.ok(refused === "SIOCSIFFLAGS" || refused === "TUNSETIFF", stderr.toString());
  return refused === "SIOCSIFFLAGS";
}
