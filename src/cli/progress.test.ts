import assert from "node:assert/strict";
import { test } from "node:test";
import { TestClock } from "../base/test-clock.ts";
import { painter } from "./paint.ts";
import { LiveProgress, nextLine, PlainProgress, renderLines, type ProgressLine } from "./progress.ts";
import type { Screen } from "./terminal.ts";
import { displayWidth } from "./width.ts";

class Paper implements Screen {
  readonly isTerminal = true;
  readonly color = false;
  readonly paint = painter(false);
  readonly writes: string[] = [];
  readonly columns: number;
  readonly rows: number;

  constructor(columns = 80, rows = 24) {
    this.columns = columns;
    this.rows = rows;
  }

  write(data: string | Uint8Array): Promise<void> {
    this.writes.push(data.toString());
    return Promise.resolve();
  }
}

const options = { columns: 80, rows: 24, paint: painter(false), spinner: "*" };
const line = (topic: string, state: string, more: Partial<ProgressLine> = {}): ProgressLine => ({
  topic,
  state,
  unit: "",
  rate: 0,
  reportedMs: 0,
  ...more,
});

test("a pull shows a bar, how much of how much, and how fast", () => {
  const pull = line("pull nginx", "downloading", { done: 2 ** 20, total: 2 ** 22, unit: "bytes", rate: 2 ** 19 });
  assert.deepEqual(renderLines([pull], options), [
    " * pull nginx  downloading  ━━━━━───────────────  1 MiB of 4 MiB  512 KiB/s",
  ]);
});

test("what is done has a tick, what fails a cross, and neither a bar", () => {
  const lines = renderLines(
    [
      line("web-1", "healthy"),
      line("web-2", "exited with code 1"),
      line("layer", "there already", { done: 1, total: 1 }),
    ],
    options,
  );
  assert.deepEqual(lines, [" ✓ web-1  healthy", " ✗ web-2  exited with code 1", " ✓ layer  there already"]);
});

test("lines fit any terminal", () => {
  const pull = line("pull registry.example/a/very/long/name:tag", "downloading", {
    done: 1,
    total: 3,
    unit: "bytes",
    rate: 5e6,
  });
  for (let columns = 24; columns < 140; columns += 1) {
    for (const shown of renderLines([pull], { ...options, columns })) assert.ok(displayWidth(shown) < columns, shown);
  }
});

test("when there are more lines than rows, what is under way is shown and finished ones are counted", () => {
  const done = Array.from({ length: 40 }, (_, index) => line(`done-${index}`, "healthy"));
  const doing = Array.from({ length: 5 }, (_, index) => line(`doing-${index}`, "starting"));
  const lines = renderLines([...done, ...doing], { ...options, rows: 12 });
  assert.ok(lines.length <= 12 - 1, `${lines.length} lines`);
  assert.equal(lines[0], " 36 more");
  for (const { topic } of doing) assert.ok(lines.some((shown) => shown.includes(topic)));
});

const report = (done: number) => ({ topic: "pull", state: "downloading", done, unit: "bytes" });

test("a rate needs two reports, and is smoothed after that", () => {
  const first = nextLine(undefined, report(0), 0);
  assert.equal(first.rate, 0);
  const second = nextLine(first, report(1000), 1000);
  assert.equal(second.rate, 1000);
  const third = nextLine(second, report(4000), 2000);
  assert.equal(third.rate, 2000);
});

test("however much is reported, a terminal is redrawn ten times a second", async () => {
  const clock = new TestClock();
  const paper = new Paper();
  const view = new LiveProgress(paper, clock);
  for (let step = 0; step < 100; step += 1) {
    view.update({ topic: "pull", state: "downloading", done: step, unit: "bytes" });
    await clock.advance(10);
  }
  assert.ok(paper.writes.length >= 9 && paper.writes.length <= 10, `${paper.writes.length} redraws`);
});

test("a redraw goes up over its own lines, and finishing leaves them", async () => {
  const clock = new TestClock();
  const paper = new Paper();
  const view = new LiveProgress(paper, clock);
  view.update({ topic: "web-1", state: "starting", unit: "" });
  view.update({ topic: "web-2", state: "starting", unit: "" });
  await clock.advance(100);
  view.update({ topic: "web-1", state: "healthy", unit: "" });
  view.finish();
  assert.equal(paper.writes.at(-1)?.split("\u001b[K")[0], "\u001b[2A\r ✓ web-1  healthy");
  const drawn = paper.writes.length;
  await clock.advance(1000);
  assert.equal(paper.writes.length, drawn, "nothing is drawn after the end");
});

test("off a terminal there is a line for each change and none for bytes", () => {
  const paper = new Paper();
  const view = new PlainProgress(paper);
  for (const done of [1, 2, 3]) view.update({ topic: "pull", state: "downloading", done, unit: "bytes" });
  view.update({ topic: "pull", state: "done", unit: "bytes" });
  assert.deepEqual(paper.writes, ["pull: downloading\n", "pull: done\n"]);
});
