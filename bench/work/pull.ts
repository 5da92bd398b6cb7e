import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { timeMs } from "../process.ts";
import { startRegistry } from "../registry.ts";
import { rowOf } from "../row.ts";
import { interleave, type Work } from "./ground.ts";

const rounds = 3;

/** An image of 10,800 files from a registry on loopback, until a container could start from it. */
export const pull: Work = {
  name: "pull",
  measure: async ({ contenders, folder, cacheFolder }) => {
    const registry = await startRegistry(folder, cacheFolder);
    try {
      const figures = await interleave(contenders, rounds, async (contender) => {
        const { pull, forget } = contender;
        // A runtime alone knows no images: its column says what nobody can do without.
        if (pull === undefined) return leastSeconds(registry.blobs);
        const seconds = timeMs(pull(registry.reference)) / 1000;
        await forget?.(registry.reference);
        return seconds;
      });
      const bounds = [{ sense: "at most", factor: 0.4, of: "docker" }] as const;
      return [rowOf("cold pull, 10,800 files (bare: gunzip, digests)", "s", figures, bounds)];
    } finally {
      await registry.stop();
    }
  },
};

/** Both digests of each layer, and unpacking it in between, by one core. */
function leastSeconds(blobs: readonly string[]): number {
  const startMs = performance.now();
  for (const blob of blobs) {
    const packed = readFileSync(blob);
    createHash("sha256").update(packed).digest();
    createHash("sha256").update(gunzipSync(packed)).digest();
  }
  return (performance.now() - startMs) / 1000;
}
