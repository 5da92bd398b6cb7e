import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { DockerRegistry } from "../../src/image/registry/docker-registry-fixture.ts";
import { busyboxImage, TestDaemon, type Said } from "./daemon.ts";

/** Debian's docker-registry, with basic auth, and a daemon whose images are built on the spot. */
let registry: DockerRegistry;
let daemon: TestDaemon;
let name: string;
const password = "a-password-of-the-registry";

before(async () => {
  const { stdout } = spawnSync("htpasswd", ["-nbB", "me", password], { encoding: "utf8" });
  registry = await DockerRegistry.start(stdout.trim());
  daemon = await TestDaemon.start();
  name = `${registry.domain}/box:1`;
  const folder = daemon.folder("box", {
    "croft.toml": `stack = "box"\n${busyboxImage}\n[container.once]\nimage = "box"\ncommand = ["/bin/busybox", "true"]\nrestart = "never"\n`,
  });
  const built = await daemon.croft(["up", folder, "--yes"]);
  assert.equal(built.code, 0, built.stdout + built.stderr);
  const { imageDigest } = await daemon.client.instances.get({ instance: "box/once" });
  assert.ok(imageDigest !== "");
  await ok(["image", "tag", imageDigest, name]);
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
  await registry?.[Symbol.asyncDispose]();
});

async function ok(args: readonly string[], input?: string): Promise<Said> {
  const said = await daemon.croft(args, input === undefined ? {} : { input });
  assert.equal(said.code, 0, `croft ${args.join(" ")}: ${said.stdout}${said.stderr}`);
  return said;
}

function login(secret: string): Promise<Said> {
  return daemon.croft(["login", registry.domain, "-u", "me", "--password-stdin"], { input: secret });
}

test("without credentials, and with wrong ones, it says so", async () => {
  const push = await daemon.croft(["image", "push", name]);
  assert.notEqual(push.code, 0);
  assert.match(push.stderr, /croft login/);
  const wrong = await login("not-it");
  assert.equal(wrong.code, 5, wrong.stderr);
  assert.ok(!wrong.stderr.includes("not-it"));
});

test("what is pushed can be pulled, by tag and by digest, and runs", async () => {
  const right = await login(password);
  assert.equal(right.code, 0, right.stderr);
  await ok(["image", "push", name]);
  const { digest } = await daemon.client.images.get({ image: name });
  await ok(["image", "rm", name]);
  await ok(["image", "pull", name]);
  assert.equal((await daemon.client.images.get({ image: name })).digest, digest, "the same, byte for byte");
  const byDigest = `${registry.domain}/box@${digest}`;
  await ok(["image", "pull", byDigest]);
  assert.equal((await ok(["run", "--rm", byDigest, "/bin/busybox", "echo", "it", "runs"])).stdout, "it runs\n");
  const missing = await daemon.croft(["image", "pull", `${registry.domain}/box:nothing`]);
  assert.equal(missing.code, 3, missing.stderr);
});

test("saved and loaded, it is the same", async () => {
  const path = join(daemon.root, "saved.tar");
  const { digest } = await daemon.client.images.get({ image: name });
  const saved = spawnSync("sh", ["-c", 'exec "$0" image save "$1" > "$2"', join("bin", "croft"), name, path], {
    encoding: "utf8",
    env: { ...process.env, CROFT_ROOT: daemon.root },
  });
  assert.equal(saved.status, 0, saved.stderr);
  await ok(["image", "rm", name]);
  await ok(["image", "load", "-i", path]);
  assert.equal((await daemon.client.images.get({ image: name })).digest, digest);
});

test("docker's own credentials are used where there are no other", async () => {
  await ok(["logout", registry.domain]);
  await ok(["image", "rm", name]);
  const refused = await daemon.croft(["image", "pull", name]);
  assert.notEqual(refused.code, 0, "logged out is logged out");
  const docker = join(daemon.root, "docker");
  mkdirSync(docker);
  const auth = Buffer.from(`me:${password}`).toString("base64");
  writeFileSync(join(docker, "config.json"), JSON.stringify({ auths: { [registry.domain]: { auth } } }));
  process.env["DOCKER_CONFIG"] = docker;
  try {
    await daemon.restart();
    await ok(["image", "pull", name]);
  } finally {
    delete process.env["DOCKER_CONFIG"];
    rmSync(docker, { recursive: true });
  }
});
