import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { instanceId } from "../../base/id.ts";
import { listOwned } from "./owned.ts";
import { instance } from "./test-host.ts";
import { ask, command, serve, untilClosed } from "./test-traffic.ts";
import { at, front, testHost, trafficSuite } from "./traffic-suite.ts";

const call = backgroundCall();

trafficSuite("netns");

test("an instance that is detached answers no more, even while a connection of it keeps its namespace alive", async () => {
  const late = instance("late", [[front, "10.86.1.8"]]);
  const attachment = await testHost().driver.attach(late, call);
  assert.ok(attachment.kind === "netns");
  const server = serve(attachment.path, 80, "late");
  assert.equal(await ask(at("web-1"), "10.86.1.8", 80), "late 10.86.1.5");
  await testHost().driver.detach(late.id, call);
  assert.equal(await ask(at("web-1"), "10.86.1.8", 80), "nothing");
  const successor = await testHost().driver.attach({ ...late, id: instanceId("shop", "late", 1, "fedcba98") }, call);
  assert.ok(successor.kind === "netns");
  const next = serve(successor.path, 80, "successor");
  assert.equal(await ask(at("web-1"), "10.86.1.8", 80), "successor 10.86.1.5");
  next.close();
  await untilClosed(successor.path);
  await testHost().driver.detach(instanceId("shop", "late", 1, "fedcba98"), call);
  await call.clock.sleep(2100);
  const listed = async (): Promise<unknown> =>
    (await testHost().driver.list(call)).ports.filter(({ id }) => id.startsWith("shop.late"));
  // The kernel ends the other one's namespace in its own time, which on a busy machine is long.
  for (let tries = 0; tries < 200 && JSON.stringify(await listed()).includes("fedcba98"); tries += 1) {
    await call.clock.sleep(100);
  }
  assert.deepEqual(await listed(), [{ id: late.id, intact: false }], "it lingers");
  await testHost().driver.detach(late.id, call);
  assert.ok(!listOwned(testHost().home).some((one) => one.includes("late")));
  server.close();
});

test("programs without privileges may listen on low ports and ping", () => {
  assert.equal(command(at("web-1"), "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").trim(), "0");
  assert.match(command(at("web-1"), "cat", "/proc/sys/net/ipv4/ping_group_range"), /^0\s+2147483647/);
});
