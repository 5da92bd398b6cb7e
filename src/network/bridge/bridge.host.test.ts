import { networkContract } from "../contract-suite.ts";
import { makeTestHost } from "./test-host.ts";

networkContract("bridge", async () => {
  const host = makeTestHost();
  return { driver: host.driver, restart: () => host.restart(), dispose: () => host.dispose() };
});
