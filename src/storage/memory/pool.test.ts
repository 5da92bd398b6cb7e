import { sha256 } from "../../base/id.ts";
import { poolContract } from "../contract-suite.ts";
import { diskContract } from "../disk-suite.ts";
import { memoryBaseBytes } from "./disks.ts";
import { MemoryPool } from "./pool.ts";

poolContract("memory", async () => ({
  pool: new MemoryPool(),
  layers: ["base", "top"].map((name) => ({ digest: sha256(name), path: `/memory/layers/${name}` })),
  dispose: async () => {},
}));

diskContract("memory", async () => ({
  disks: new MemoryPool().disks,
  base: { path: "/memory/image/debian.qcow2", format: "qcow2" },
  baseBytes: memoryBaseBytes,
  exportPath: "/memory/exported.qcow2",
  dispose: async () => {},
}));
