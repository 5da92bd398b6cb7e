import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall, type Call } from "../base/call.ts";
import { sha256 } from "../base/id.ts";
import type { Image, Images } from "../image/contract.ts";
import type { Submission } from "./contract.ts";
import type { Parts } from "./parts.ts";
import { buildImages, resolve, resolvePreview } from "./resolve.ts";
import { stackOf, submit } from "./world.fixture.ts";

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

/** A store whose builds are a function of what `debian` means in it. */
class Store {
  debian = "of May";
  readonly parts: Parts;

  constructor() {
    const names = new Map<string, Image>();
    const images: Pick<Images, "find" | "build"> = {
      find: async (name) => names.get(name),
      build: async ({ reference, from, env }) => {
        const image = { digest: sha256(`${from} ${this.debian} ${JSON.stringify(env)}`) } as unknown as Image;
        names.set(reference, image);
        return image;
      },
    };
    this.parts = { images } as unknown as Parts;
  }
}

const asWritten = { pull: false, build: false };

function siteWith(text: string): Submission {
  const env = { TEXT: text };
  return submit(
    stackOf({ web: { image: "site" } }, { images: { site: { from: "debian", packages: [], files: {}, env } } }),
  );
}

test("an image that was built stays what it is when the image it is from moves, as the plan says; --build makes it anew", async () => {
  const store = new Store();
  const call = backgroundCall();
  const first = await resolve(siteWith("a"), asWritten, undefined, store.parts, call);
  store.debian = "of June";
  const { generation, missingImages } = await resolvePreview(siteWith("a"), first, store.parts, call);
  assert.deepEqual([generation.images, missingImages], [first.images, []]);
  assert.deepEqual((await resolve(siteWith("a"), asWritten, first, store.parts, call)).images, first.images);
  const fresh = await resolve(siteWith("a"), { ...asWritten, build: true }, first, store.parts, call);
  assert.notDeepEqual(fresh.images, first.images);
});

test("another recipe is built, and the one before it again, which the plan says both times", async () => {
  const { parts } = new Store();
  const call = backgroundCall();
  const first = await resolve(siteWith("a"), asWritten, undefined, parts, call);
  assert.deepEqual((await resolvePreview(siteWith("b"), first, parts, call)).missingImages, ["site"]);
  // A generation that fails leaves its image under the name; the current one is still the first.
  await resolve(siteWith("b"), asWritten, first, parts, call);
  assert.deepEqual((await resolvePreview(siteWith("a"), first, parts, call)).missingImages, ["site"]);
  assert.deepEqual((await resolve(siteWith("a"), asWritten, first, parts, call)).images, first.images);
});
