import { backgroundCall } from "../../base/call.ts";
import { homeBeneath } from "../../base/home.ts";
import { BridgeNetwork } from "./driver.ts";
import { instance, network } from "./test-host.ts";

/** A daemon that makes, changes and removes networks, instances and ports without end, until it is killed. */
const driver = new BridgeNetwork(homeBeneath(process.argv[2] ?? ""));
const call = backgroundCall();
const front = network("front", "10.86.1.0/24");
const back = network("back", "10.86.2.0/24", true);
const app = instance("app", [
  [front, "10.86.1.7"],
  [back, "10.86.2.7"],
]);
const machine = { ...instance("machine", [[front, "10.86.1.8"]]), kind: "tap" as const };
const target = { address: "10.86.1.7", port: 80 };
const port = { hostAddress: "0.0.0.0", hostPort: 18_090, protocol: "tcp" as const, targets: [target], holder: "x" };

process.stdout.write("running\n");
for (;;) {
  await driver.converge(front, call);
  await driver.converge(back, call);
  await driver.attach(app, call);
  await driver.attach(machine, call);
  await driver.publish({ names: [{ network: front.id, name: "app", address: "10.86.1.7" }], published: [port] }, call);
  await driver.publish({ names: [], published: [] }, call);
  await driver.detach(machine.id, call);
  await driver.detach(app.id, call);
  await driver.remove(back.id, call);
}
