import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall, type Call } from "../base/call.ts";
import type { Image } from "../image/contract.ts";
import type { Submission } from "./contract.ts";
import type { Parts } from "./parts.ts";
import { buildImages } from "./resolve.ts";

const submission = {
  spec: { stack: "shop", images: { site: { from: "scratch", packages: [], files: {}, env: {} } } },
  files: {},
} as unknown as Submission;

async function saidOf(build: (call: Call) => void): Promise<readonly string[]> {
  const said: string[] = [];
  const call: Call = { ...backgroundCall(), report: ({ topic, state }) => void said.push(`${topic}: ${state}`) };
  const images = {
    build: async (_: unknown, work: Call): Promise<Image> => {
      build(work);
      return { digest: "sha256:00" } as unknown as Image;
    },
  };
  await buildImages(submission, ["site"], false, { images } as unknown as Parts, call);
  return said;
}

test("a build says that it builds; what is built already says nothing", async () => {
  assert.deepEqual(await saidOf((work) => work.report({ topic: "files", state: "/srv" })), [
    "image site: building",
    "files: /srv",
    "image site: built",
  ]);
  assert.deepEqual(await saidOf(() => {}), []);
});
