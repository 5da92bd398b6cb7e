import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { backgroundCall } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { CredentialStore } from "./credential.ts";

const call = backgroundCall();
const auth = (text: string): { auth: string } => ({ auth: Buffer.from(text).toString("base64") });
let rootDir = "";
let store: CredentialStore;
beforeEach(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "croft-credential-"));
  await mkdir(join(rootDir, "docker"));
  store = new CredentialStore(join(rootDir, "etc"), join(rootDir, "docker"));
});
afterEach(async () => await rm(rootDir, { recursive: true, force: true }));

const docker = async (config: object): Promise<void> =>
  await writeFile(join(rootDir, "docker", "config.json"), JSON.stringify(config));

test("without any file there are no credentials", async () => {
  assert.equal(await store.find("docker.io", call), undefined);
});

test("what was saved is found, for that registry only, in a file that only its owner reads", async () => {
  await store.save("localhost:5000", { username: "ada", password: "a:b" });
  assert.deepEqual(await store.find("localhost:5000", call), { username: "ada", password: "a:b" });
  assert.equal(await store.find("localhost:5001", call), undefined);
  assert.equal((await stat(join(rootDir, "etc/auth.json"))).mode & 0o777, 0o600);
  await store.forget("localhost:5000");
  assert.equal(await store.find("localhost:5000", call), undefined);
  assert.equal((await readFile(join(rootDir, "etc/auth.json"), "utf8")).includes("YWRhOmE6Yg"), false);
});

test("docker's entries are found under the names that docker gives them", async () => {
  await docker({
    auths: {
      "https://index.docker.io/v1/": auth("hub:1"),
      "https://one.example/v2/": auth("one:2\u0000\u0000"),
      "two.example:443": auth("two:3"),
      empty: {},
    },
  });
  assert.deepEqual(await store.find("docker.io", call), { username: "hub", password: "1" });
  assert.deepEqual(await store.find("one.example", call), { username: "one", password: "2" });
  assert.deepEqual(await store.find("two.example:443", call), { username: "two", password: "3" });
  assert.equal(await store.find("empty", call), undefined);
  assert.equal(await store.find("constructor", call), undefined);
  await store.save("docker.io", { username: "own", password: "4" });
  assert.deepEqual(await store.find("docker.io", call), { username: "own", password: "4" });
});

test("a file with a mistake is named, and not taken for no credentials", async () => {
  await writeFile(join(rootDir, "docker", "config.json"), "{");
  await assert.rejects(store.find("docker.io", call), (error) => isFault(error) && /config\.json/.test(error.message));
  await docker({ auths: { "one.example": { auth: "bm9jb2xvbg==" } } });
  await assert.rejects(store.find("one.example", call), (error) => isFault(error, "invalid"));
});

test("a credential helper is run by its name, which cannot be anything else", async () => {
  await docker({ credHelpers: { "one.example": "../../bin/sh" } });
  await assert.rejects(store.find("one.example", call), (error) => isFault(error, "invalid"));
  await docker({ credsStore: "croft-test-that-is-not-there" });
  await assert.rejects(store.find("one.example", call), (error) => isFault(error, "unsupported"));
});

test("a helper's answer is used", async () => {
  const directory = join(rootDir, "bin");
  await mkdir(directory);
  const answer = '{"Username":"h","Secret":"5"}';
  const script = `#!/bin/sh\nread server\nif [ "$server" = one.example ]; then echo '${answer}'; else exit 1; fi\n`;
  await writeFile(join(directory, "docker-credential-test"), script);
  await chmod(join(directory, "docker-credential-test"), 0o755);
  const path = process.env["PATH"];
  process.env["PATH"] = `${directory}:${path}`;
  try {
    await docker({ credsStore: "test" });
    assert.deepEqual(await store.find("one.example", call), { username: "h", password: "5" });
    assert.equal(await store.find("two.example", call), undefined);
  } finally {
    process.env["PATH"] = path;
  }
});
