/**
 * What the loop itself costs: a stack of many instances on the memory engine, brought up, brought up again with nothing to
 * do, and taken down. Prints one JSON object a line; all of it should grow no faster than the stack.
 *
 *     node bench/plan.ts
 */
import { systemClock } from "../src/base/call.ts";
import type { Operation } from "../src/operation/contract.ts";
import { applyOptions, stackOf, submit, World } from "../src/reconcile/world.fixture.ts";

const sizes = [100, 1000, 10_000];
const rounds = 5;
/** Of 1,000 instances, in milliseconds. */
const reachMs = 300;

async function measure(count: number): Promise<Record<"first" | "noop" | "down", number>> {
  const world = new World(systemClock);
  const daemon = await world.boot();
  const perSection = 50;
  const sections = Array.from({ length: count / perSection }, (_, at) => [`s${at}`, { replicas: perSection }] as const);
  const submission = submit(stackOf(Object.fromEntries(sections)));
  const end = async (operation: Operation): Promise<void> => {
    for await (const { status, fault } of daemon.operations.watch(operation.id, world.call)) {
      if (status !== "running" && status !== "succeeded") throw new Error(`${status}: ${fault?.message}`);
    }
  };
  const up = async (): Promise<void> => {
    const { call } = world;
    await daemon.stacks.preview(submission, { pruneVolumes: false }, call);
    await end(await daemon.stacks.apply(submission, applyOptions, call));
  };
  const first = await timed(up);
  const noops: number[] = [];
  for (let round = 0; round < rounds; round += 1) noops.push(await timed(up));
  const noop = noops.sort((left, right) => left - right)[Math.floor(rounds / 2)] ?? 0;
  const down = await timed(async () => await end(await daemon.stacks.remove("shop", { volumes: true }, world.call)));
  await daemon.operations.close();
  daemon.kill();
  return { first, noop, down };
}

async function timed(work: () => Promise<void>): Promise<number> {
  const beganMs = performance.now();
  await work();
  return performance.now() - beganMs;
}

// The daemon's timers keep no process alive, and here is nothing else that would.
const keepAlive = setInterval(() => {}, 60_000);
// Once for nothing: what is measured is not the compiler.
await measure(1000);
for (const count of sizes) {
  const { first, noop, down } = await measure(count);
  const unit = "ms";
  const line = (work: string, croft: number, reach?: { readonly reach: number; readonly ok: boolean }): void =>
    console.log(JSON.stringify({ work: `${work} of ${count} instances`, unit, croft: Math.round(croft), ...reach }));
  line("plan + no-op up", noop, count === 1000 ? { reach: reachMs, ok: noop < reachMs } : undefined);
  // A new generation counts as healthy when it has run for a second.
  line("first up", first);
  line("down", down);
}
clearInterval(keepAlive);
