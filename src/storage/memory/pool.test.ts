import { sha256 } from "../../base/id.ts";
import { poolContract } from "../contract-suite.ts";
import { MemoryPool } from "./pool.ts";

poolContract("memory", async () => ({
  pool: new MemoryPool(),
  layers: ["base", "top"].map((name) => ({ digest: sha256(name), path: `/memory/layers/${name}` })),
  dispose: async () => {},
}));
