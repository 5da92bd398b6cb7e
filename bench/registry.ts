import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { spawn } from "node:child_process";
import { digestOf, imageConfig, largeLayers } from "./image.ts";

const address = "127.0.0.1:5000";
const repository = "bench/large";
const manifestType = "application/vnd.oci.image.manifest.v1+json";

export interface Registry {
  /** What to pull. */
  readonly reference: string;
  /** The layers' files as the registry keeps them, packed. */
  readonly blobs: readonly string[];
  stop(): Promise<void>;
}

/**
 * Debian's registry on loopback, with the large image in it. Making that takes a while, so it stays in `cache` for the
 * next run.
 */
export async function startRegistry(folder: string, cache: string): Promise<Registry> {
  const ready = join(cache, "registry");
  const data = existsSync(ready) ? ready : `${ready}.new`;
  mkdirSync(data, { recursive: true });
  const config = join(folder, "registry.yml");
  writeFileSync(
    config,
    `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${data} } }\nhttp: { addr: "${address}" }\n`,
  );
  const child = spawn("docker-registry", ["serve", config], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    await ended;
  };
  while (
    !(await fetch(`http://${address}/v2/`)
      .then(({ ok }) => ok)
      .catch(() => false))
  ) {
    if (child.exitCode !== null) throw new Error("docker-registry did not start");
    await sleep(50);
  }
  if (data !== ready) {
    await pushLargeImage();
    await stop();
    rmSync(ready, { recursive: true, force: true });
    renameSync(data, ready);
    return await startRegistry(folder, cache);
  }
  const answer = await answered(`http://${address}/v2/${repository}/manifests/1`, {
    headers: { accept: manifestType },
  });
  const manifest = (await answer.json()) as { readonly layers: readonly { readonly digest: string }[] };
  const blobs = manifest.layers.map(({ digest }) => {
    const hex = digest.slice("sha256:".length);
    return join(data, "docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
  });
  return { reference: `${address}/${repository}:1`, blobs, stop };
}

async function pushLargeImage(): Promise<void> {
  const tars: Uint8Array[] = [];
  const layers: object[] = [];
  for await (const { tar, gzip } of largeLayers()) {
    tars.push(tar);
    layers.push(await push(gzip, "application/vnd.oci.image.layer.v1.tar+gzip"));
  }
  const config = await push(Buffer.from(imageConfig(tars)), "application/vnd.oci.image.config.v1+json");
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: manifestType, config, layers });
  const headers = { "content-type": manifestType };
  await answered(`http://${address}/v2/${repository}/manifests/1`, { method: "PUT", body: manifest, headers });
}

async function push(bytes: Uint8Array, mediaType: string): Promise<object> {
  const digest = digestOf(bytes);
  const begun = await answered(`http://${address}/v2/${repository}/blobs/uploads/`, { method: "POST" });
  const place = new URL(begun.headers.get("location") ?? "");
  place.searchParams.set("digest", digest);
  const headers = { "content-type": "application/octet-stream" };
  await answered(place.href, { method: "PUT", body: new Blob([new Uint8Array(bytes)]), headers });
  return { mediaType, digest, size: bytes.length };
}

async function answered(url: string, init: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  if (!response.ok) throw new Error(`${init.method ?? "GET"} ${url}: ${response.status} ${await response.text()}`);
  return response;
}
