import assert from "node:assert/strict";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { diffGenerations } from "./diff.ts";
import { expand } from "./expand.ts";
import { plan } from "./plan.ts";
import { renderDiff, renderPlan, summarizePlan } from "./render.ts";
import { generationOf, nothing } from "./stack.fixture.ts";
import { perform, World } from "./world.fixture.ts";

const nobody: ReadonlySet<string> = new Set();
const older = generationOf(
  { db: { image: "postgres:15" }, web: { replicas: 3, memoryBytes: 2 ** 28 }, old: {} },
  { volumes: { data: { protect: true }, tmp: { protect: false } } },
);
const newer = generationOf(
  { db: { image: "postgres:16" }, web: { replicas: 2, memoryBytes: 2 ** 29 }, cache: { image: "redis:7" } },
  { volumes: { data: { protect: true, sizeBytes: 2 ** 30 } } },
);

function world(): World {
  const world = new World();
  const desired = expand(older, nobody);
  perform(world, desired, plan(desired, world.observe(), { removeVolumes: false }), () => 0, Infinity);
  return world;
}

test("a plan is one line for each thing: what happens, what it costs, and why", () => {
  const steps = plan(expand(newer, nobody), world().observe(), { removeVolumes: true });
  assert.equal(
    renderPlan("shop", steps, { color: false }),
    `${[
      " ~  volume data  update    hot        size no limit → 1 GiB",
      " ±  db-1         recreate  recreate   image postgres:15 → postgres:16",
      " ~  web-1        update    hot        memory 256 MiB → 512 MiB",
      " ~  web-2        update    hot        memory 256 MiB → 512 MiB",
      " -  web-3        remove               fewer replicas",
      " +  cache-1      create               not there yet",
      " -  old-1        remove               no longer wanted",
      " -  volume tmp   remove    data-loss  no longer wanted",
      "",
      "shop: 3 to update, 1 to recreate, 3 to remove, 1 to create.",
    ].join("\n")}\n`,
  );
});

test("refusals are told with the mend, and that nothing is applied", () => {
  const steps = plan(nothing, world().observe(), { removeVolumes: true });
  const text = renderPlan("shop", steps, { color: false });
  assert.match(
    text,
    / ✗ {2}volume data is refused: it is protected, and would be destroyed with its data\n {4}set protect = false/,
  );
  assert.match(text, /\nThis plan is not applied\.\n$/);
});

test("an empty plan says so, and colours are there only when asked for", () => {
  assert.equal(
    renderPlan("shop", { steps: [], refusals: [] }, { color: true }),
    "shop: nothing to do, everything is as the file says\n",
  );
  const steps = plan(expand(newer, nobody), world().observe(), { removeVolumes: false });
  const plain = renderPlan("shop", steps, { color: false });
  const colored = renderPlan("shop", steps, { color: true });
  assert(!plain.includes("\u001b") && colored.includes("\u001b[33m"));
  assert.equal(stripVTControlCharacters(colored).replaceAll(/ +$/gm, ""), plain);
});

test("the summary names every step of the plan once", () => {
  const steps = plan(expand(newer, nobody), world().observe(), { removeVolumes: true });
  const { groups } = summarizePlan("shop", steps);
  assert.deepEqual(groups.flatMap((group) => group.steps).toSorted(), steps.steps.map((step) => step.key).toSorted());
});

test("of a table only what differs is told, in the words of the file", () => {
  const health = { intervalMs: 1000, timeoutMs: 3000, retries: 2, startPeriodMs: 0 };
  const from = generationOf({
    web: {
      health: { check: { kind: "http", port: 80, path: "/" }, ...health },
      update: { order: "stop-first", healthyWithinMs: 60_000 },
    },
  });
  const to = generationOf({
    web: {
      health: { check: { kind: "exec", argv: ["true"] }, ...health, startPeriodMs: 2000 },
      update: { order: "stop-first", healthyWithinMs: 30_000 },
    },
  });
  assert.equal(
    renderDiff(diffGenerations(from, to), { color: false }),
    `${[
      "~ container.web",
      "    health.check http :80/ → exec [true]",
      "    health.start-period 0ms → 2s",
      "    update.healthy-within 1m → 30s",
    ].join("\n")}\n`,
  );
});

test("two generations differ section by section, and no secret's value is ever told", () => {
  const from = generationOf(
    { web: { env: { A: { value: "1" }, P: { secret: "s" } } }, gone: {} },
    { secrets: { s: { source: "generate", length: 32 } } },
  );
  const to = generationOf(
    {
      web: {
        env: { A: { value: "2" }, P: { secret: "s" } },
        mounts: [{ kind: "tmpfs", destination: "/t", sizeBytes: 2 ** 20 }],
        stopGraceMs: 5000,
        health: { check: { kind: "tcp", port: 80 }, intervalMs: 1, timeoutMs: 1, retries: 1, startPeriodMs: 1000 },
      },
      fresh: {},
    },
    { secrets: { s: { source: "env", variable: "S" } } },
  );
  const diffs = diffGenerations({ ...from, secrets: { s: "v1" } }, { ...to, secrets: { s: "v2" } });
  assert.equal(
    renderDiff(diffs, { color: false }),
    `${[
      "~ secret.s",
      "    source generate → env",
      "    length removed (32)",
      "    variable added (S)",
      "~ container.web",
      '    env A "1" → "2"',
      "    mount /t added (tmpfs of 1 MiB)",
      "    health added ({ check = tcp :80, interval = 1ms, timeout = 1ms, retries = 1, start-period = 1s })",
      "    stop-grace 10s → 5s",
      "    value of secret s changed",
      "+ container.fresh",
      "- container.gone",
    ].join("\n")}\n`,
  );
  assert.equal(renderDiff(diffGenerations(from, from), { color: false }), "no difference\n");
});
