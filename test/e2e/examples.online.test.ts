import assert from "node:assert/strict";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { checkout, TestDaemon } from "./daemon.ts";

/**
 * The examples as they are, and with a kernel of their own for each instance: one word is another one. The images are
 * built for the first kind, and used by the second. Nothing is accelerated where this runs, so a database that is made
 * in a guest takes its time; that the file does not give it that much is no part of what is tested.
 */
let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start();
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

const examples = [
  { name: "hello", url: "http://localhost:8080/", says: /<!doctype html>/, again: /<!doctype html>/, instances: 3 },
  {
    name: "shop",
    url: "http://localhost:8081/",
    says: /Visit 1, order 1, /,
    again: /Visit 2, order 2, /,
    instances: 5,
  },
] as const;

for (const { name, url, says, again, instances } of examples) {
  for (const kind of ["container", "microvm"] as const) {
    test(`examples/${name} as ${kind}`, async () => {
      const folder = join(daemon.root, "examples", kind, name);
      cpSync(join(checkout, "examples", name), folder, { recursive: true });
      const file = join(folder, "croft.toml");
      const text = readFileSync(file, "utf8").replaceAll("[container.", `[${kind}.`);
      writeFileSync(file, kind === "container" ? text : patient(text));
      await croft("up", "--yes", file);
      assert.match(await get(url), says);
      assert.match(await get(url), again, "what was written is read");
      const { stdout } = await croft("ps", "--json");
      const { instances: listed } = JSON.parse(stdout) as {
        readonly instances: readonly { readonly kind: string; readonly status: string; readonly health: string }[];
      };
      assert.deepEqual(
        listed.map((one) => `${one.kind} ${one.status} ${one.health}`),
        Array.from({ length: instances }, () => `${kind} running healthy`),
      );
      await croft("down", name, "--yes", "--volumes");
    });
  }
}

/** Without acceleration a guest is tens of times slower than where people run one. */
function patient(text: string): string {
  const update = 'update = { order = "stop-first", healthy-within = "280s" }\n';
  return text
    .replaceAll(/^update .*\n/gm, "")
    .replaceAll(/^(\[microvm\..*\])\n/gm, `$1\n${update}`)
    .replaceAll("retries = 15", "retries = 100");
}

async function croft(...args: readonly string[]): Promise<{ readonly stdout: string }> {
  const said = await daemon.croft(args);
  assert.equal(said.code, 0, `croft ${args.join(" ")}: ${said.stdout}${said.stderr}`);
  return said;
}

async function get(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(30_000) });
  return `${response.status === 200 ? "" : `${response.status} `}${await response.text()}`;
}
