import type { Clock } from "../base/call.ts";
import { formatSize } from "../base/unit.ts";
import type { Progress } from "../client/message.ts";
import { LiveBlock } from "./live-block.ts";
import type { Paint, Tint } from "./paint.ts";
import type { Screen } from "./terminal.ts";
import { displayWidth, harmless, padEnd, truncate } from "./width.ts";

/** Shows how far long work is. Never a result: it goes to standard error. */
export interface ProgressView {
  update(progress: Progress): void;
  /** Shows the last state and leaves the lines to what follows. */
  finish(): void;
}

/** Redrawn in place in a terminal, one line for each change otherwise. */
export function progressView(screen: Screen, clock: Clock, quiet: boolean): ProgressView {
  if (quiet) return { update: () => {}, finish: () => {} };
  return screen.isTerminal ? new LiveProgress(screen, clock) : new PlainProgress(screen);
}

/** For logs and pipes: a line when a state changes, none for bytes that arrive. */
export class PlainProgress implements ProgressView {
  readonly #screen: Screen;
  readonly #states = new Map<string, string>();

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  update({ topic, state }: Progress): void {
    if (this.#states.get(topic) === state) return;
    this.#states.set(topic, state);
    void this.#screen.write(`${harmless(topic)}: ${harmless(state)}\n`);
  }

  finish(): void {}
}

/** What is worth a redraw: the eye follows ten a second, and a slow terminal can draw them. */
const frameMs = 100;
const spinner = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/** Finished lines that stay visible, so that a big stack does not scroll what is under way out of sight. */
const finishedShown = 8;

/** One line of what is shown, kept from its first report on. */
export interface ProgressLine {
  readonly topic: string;
  readonly state: string;
  readonly done?: number;
  readonly total?: number;
  readonly unit: string;
  /** Bytes or steps a second, smoothed; 0 until known. */
  readonly rate: number;
  readonly reportedMs: number;
}

export class LiveProgress implements ProgressView {
  readonly #screen: Screen;
  readonly #clock: Clock;
  readonly #lines = new Map<string, ProgressLine>();
  readonly #block: LiveBlock;
  #frame = 0;
  #cancelTick: (() => void) | undefined;

  constructor(screen: Screen, clock: Clock) {
    this.#screen = screen;
    this.#clock = clock;
    this.#block = new LiveBlock(screen);
  }

  update(progress: Progress): void {
    const nowMs = this.#clock.monotonicMs();
    this.#lines.set(progress.topic, nextLine(this.#lines.get(progress.topic), progress, nowMs));
    this.#cancelTick ??= this.#clock.after(frameMs, () => this.#tick());
  }

  finish(): void {
    this.#cancelTick?.();
    this.#cancelTick = undefined;
    if (this.#lines.size > 0) this.#draw();
    this.#block.leave();
    this.#lines.clear();
  }

  #tick(): void {
    this.#frame += 1;
    this.#draw();
    this.#cancelTick = this.#clock.after(frameMs, () => this.#tick());
  }

  #draw(): void {
    const { columns, rows, paint } = this.#screen;
    const sign = spinner[this.#frame % spinner.length] ?? "";
    void this.#block.draw(renderLines([...this.#lines.values()], { columns, rows, paint, spinner: sign }));
  }
}

/** The line after a report, its rate smoothed over about two seconds. */
export function nextLine(before: ProgressLine | undefined, progress: Progress, nowMs: number): ProgressLine {
  const passedMs = before === undefined ? 0 : nowMs - before.reportedMs;
  const gained = (progress.done ?? 0) - (before?.done ?? 0);
  let rate = before?.rate ?? 0;
  if (passedMs > 0 && gained >= 0 && progress.done !== undefined) {
    const weight = rate === 0 ? 1 : Math.min(1, passedMs / 2000);
    rate = rate * (1 - weight) + (gained / passedMs) * 1000 * weight;
  }
  return { ...progress, rate, reportedMs: nowMs };
}

export interface LinesOptions {
  readonly columns: number;
  readonly rows: number;
  readonly paint: Paint;
  readonly spinner: string;
}

/** The lines to show, cut to the terminal: what is under way first of all, older finished ones as a count. */
export function renderLines(all: readonly ProgressLine[], options: LinesOptions): readonly string[] {
  const room = Math.max(3, options.rows - 2);
  const isShown = new Set(all.filter((line) => phaseOf(line) !== "done").slice(0, room - 1));
  const finished = all.filter((line) => phaseOf(line) === "done");
  const kept = Math.min(finishedShown, room - 1 - isShown.size);
  for (const line of kept > 0 ? finished.slice(-kept) : []) isShown.add(line);
  const shown = all.filter((line) => isShown.has(line));
  const hidden = all.length - shown.length;
  const width = Math.max(0, ...shown.map(({ topic }) => displayWidth(harmless(topic))));
  const topicWidth = Math.min(width, Math.max(16, Math.floor(options.columns / 2)));
  const lines = shown.map((line) => renderLine(line, topicWidth, options));
  return hidden === 0 ? lines : [options.paint(` ${hidden} more`, "dim"), ...lines];
}

type Phase = "doing" | "done" | "failing";

const doneStates =
  /^(built|pulled|loaded|saved|pushed|healthy|started|running|stopped|removed|created|updated|repaired|done|ready|complete|there already|here already)$/;
const failingStates = /^(unhealthy|failed|exited)/;

function phaseOf({ state, done, total }: ProgressLine): Phase {
  if (failingStates.test(state)) return "failing";
  if (doneStates.test(state)) return "done";
  return total !== undefined && total > 0 && done === total ? "done" : "doing";
}

const phaseTints: Readonly<Record<Phase, Tint>> = { doing: "accent", done: "good", failing: "bad" };
const barWidth = 20;

function renderLine(line: ProgressLine, topicWidth: number, { columns, paint, spinner }: LinesOptions): string {
  const phase = phaseOf(line);
  const sign = phase === "done" ? "✓" : phase === "failing" ? "✗" : spinner;
  const tint = phaseTints[phase];
  const topic = padEnd(truncate(harmless(line.topic), topicWidth), topicWidth);
  const head = ` ${paint(sign, tint)} ${topic}  `;
  let room = columns - 1 - (5 + displayWidth(topic));
  const amount = phase === "doing" ? amountOf(line) : "";
  const bar = phase === "doing" && room > barWidth + displayWidth(amount) + 16 ? barOf(line, paint) : "";
  room -= bar === "" ? 0 : barWidth + 2;
  const state = truncate(harmless(line.state), Math.max(0, room - (amount === "" ? 0 : displayWidth(amount) + 2)));
  const shownAmount = displayWidth(amount) + 2 + displayWidth(state) <= room ? amount : "";
  return [`${head}${paint(state, phase === "doing" ? undefined : tint)}`, bar, shownAmount]
    .filter((part) => part !== "")
    .join("  ");
}

function barOf({ done, total }: ProgressLine, paint: Paint): string {
  if (done === undefined || total === undefined || total <= 0) return "";
  const filled = Math.min(barWidth, Math.round((done / total) * barWidth));
  return `${paint("━".repeat(filled), "accent")}${paint("─".repeat(barWidth - filled), "dim")}`;
}

function amountOf({ done, total, unit, rate }: ProgressLine): string {
  if (done === undefined) return "";
  const show = unit === "bytes" ? formatSize : String;
  const speed = unit === "bytes" && rate >= 1 ? `  ${formatSize(rate)}/s` : "";
  return `${show(done)}${total === undefined ? "" : ` of ${show(total)}`}${speed}`;
}
