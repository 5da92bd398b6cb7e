import { join } from "node:path";
import packageFile from "../../package.json" with { type: "json" };
import type { Home } from "../base/home.ts";
import { execCommand } from "../instance/qemu/guest/launch.ts";
import { equipLone, handOverLone, loneConfig, prepareLone } from "../instance/qemu/lone/maker.ts";
import type { HostConfig } from "../oci/route.ts";
import { main } from "../oci/main.ts";
import type { MachineMaker } from "../oci/microvm/contract.ts";

// What the compiled `croft-oci` becomes to make and start microVMs, as these need Node. Our own settings are nobody else's.
delete process.env["NODE_COMPILE_CACHE"];

function makerFor({ microvm }: HostConfig): Promise<MachineMaker> {
  const text = (name: string): string | undefined => (typeof microvm[name] === "string" ? microvm[name] : undefined);
  const cache = text("cache") ?? "/var/cache/croft-oci";
  const runDir = text("run") ?? "/run/croft-oci";
  const home: Home = { libDir: cache, runDir, etcDir: "/etc/croft", prefix: "croft", socketPath: join(runDir, "none") };
  return Promise.resolve({
    prepare: (call) => prepareLone(home, text("kernel"), call),
    containerConfig: loneConfig,
    equip: equipLone,
    handOver: handOverLone,
  });
}

process.exit(
  await main(process.argv.slice(2), packageFile.version, {
    maker: makerFor,
    execScript: () => Promise.resolve(execCommand),
  }),
);
