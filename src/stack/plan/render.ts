import { parseInstanceId } from "../../base/id.ts";
import { describeChange } from "./diff.ts";
import type { SectionDiff } from "./diff.ts";
import type { Cost, Plan, Step } from "./step.ts";

/** A plan as a person or a program reads it: what happens to each thing, instead of step by step. */
export interface PlanSummary {
  readonly stack: string;
  readonly groups: readonly PlanGroup[];
  readonly refusals: Plan["refusals"];
  /** How many things change by each verb, those that occur. */
  readonly counts: Readonly<Partial<Record<Verb, number>>>;
}

export interface PlanGroup {
  /** `web-1`, `network back`, `volume db`. */
  readonly subject: string;
  readonly verb: Verb;
  /** The worst of its steps. */
  readonly cost: Cost;
  readonly why: string;
  /** Keys of the steps, in the plan's order. */
  readonly steps: readonly string[];
}

export type Verb =
  | "create"
  | "start"
  | "update"
  | "repair"
  | "restart"
  | "recreate"
  | "revert"
  | "suspend"
  | "stop"
  | "remove"
  | "await";

/** Groups the steps of a plan by what they are about; an old and a new instance in one place are one group. */
export function summarizePlan(stack: string, plan: Plan): PlanSummary {
  const steps = new Map<string, Step[]>();
  for (const step of plan.steps) {
    const subject = subjectOf(step);
    const list = steps.get(subject);
    if (list === undefined) steps.set(subject, [step]);
    else list.push(step);
  }
  const groups = [...steps].map(([subject, list]) => group(subject, list));
  const counts: Partial<Record<Verb, number>> = {};
  for (const { verb } of groups) counts[verb] = (counts[verb] ?? 0) + 1;
  return { stack, groups, refusals: plan.refusals, counts };
}

export interface RenderOptions {
  /** With ANSI colours, for a terminal. */
  readonly color: boolean;
}

/** The plan as text: one line for each thing, what it costs and why, then refusals, then a count. Ends with a newline. */
export function renderPlan(stack: string, plan: Plan, options: RenderOptions): string {
  const { groups, refusals, counts } = summarizePlan(stack, plan);
  const paint = painter(options.color);
  if (groups.length === 0 && refusals.length === 0) return `${stack}: nothing to do, everything is as the file says\n`;
  const subjectWidth = Math.max(0, ...groups.map(({ subject }) => subject.length));
  const verbWidth = Math.max(0, ...groups.map(({ verb }) => verb.length));
  const costWidth = Math.max(0, ...groups.map(({ cost }) => costWord(cost).length));
  const lines = groups.map(({ subject, verb, cost, why }) => {
    const color = verbColor[verb];
    const word = costWord(cost).padEnd(costWidth);
    return [
      ` ${paint(verbSign[verb], color)}`,
      subject.padEnd(subjectWidth),
      paint(verb.padEnd(verbWidth), color),
      ...(costWidth === 0 ? [] : [cost === "data-loss" ? paint(word, "red") : word]),
      paint(why, "dim"),
    ].join("  ");
  });
  const refused = refusals.flatMap(({ subject, why, hint }) => [
    ` ${paint("✗", "red")}  ${paint(`${subject} is refused`, "red")}: ${why}`,
    `    ${hint}`,
  ]);
  const total = Object.entries(counts).map(([verb, count]) => `${count} to ${verb}`);
  const end = refusals.length > 0 ? "This plan is not applied." : `${stack}: ${total.join(", ")}.`;
  return `${[...lines, ...refused, "", end].join("\n").replaceAll(/[ ]+$/gm, "")}\n`;
}

/** What differs between two generations as text, for `croft diff`. Ends with a newline. */
export function renderDiff(diffs: readonly SectionDiff[], options: RenderOptions): string {
  const paint = painter(options.color);
  if (diffs.length === 0) return "no difference\n";
  const lines = diffs.flatMap(({ subject, kind, changes }) => {
    const [sign, color] =
      kind === "added"
        ? (["+", "green"] as const)
        : kind === "removed"
          ? (["-", "red"] as const)
          : (["~", "yellow"] as const);
    return [`${paint(sign, color)} ${subject}`, ...changes.map((change) => `    ${describeChange(change)}`)];
  });
  return `${lines.join("\n")}\n`;
}

function subjectOf({ action }: Step): string {
  if ("network" in action) return `network ${action.network.slice(action.network.indexOf(".") + 1)}`;
  if ("volume" in action) return `volume ${action.volume.slice(action.volume.indexOf(".") + 1)}`;
  const parts = parseInstanceId(action.instance);
  const instance = parts === undefined ? action.instance : `${parts.name}-${parts.ordinal}`;
  return "disk" in action ? `disk ${action.disk} of ${instance}` : instance;
}

/** From the least to the worst. */
const costs: readonly Cost[] = ["none", "hot", "restart", "recreate", "migrate", "data-loss"];

function group(subject: string, steps: readonly Step[]): PlanGroup {
  let cost: Cost = "none";
  for (const step of steps) if (costs.indexOf(step.cost) > costs.indexOf(cost)) ({ cost } = step);
  const verb = verbOf(steps, cost);
  const whys = new Set(steps.filter((step) => step.action.kind !== "await-healthy").map((step) => step.why));
  const why = whys.size === 0 ? (steps[0]?.why ?? "") : [...whys].join("; ");
  return { subject, verb, cost, why, steps: steps.map((step) => step.key) };
}

function verbOf(steps: readonly Step[], cost: Cost): Verb {
  const kinds = new Set(steps.map((step) => step.action.kind.split("-")[0]));
  if (kinds.has("create")) return cost === "recreate" || kinds.has("remove") ? "recreate" : "create";
  // An old instance that goes beside the new one that is there already is the end of a recreation.
  if (kinds.has("remove")) return cost === "recreate" ? "recreate" : "remove";
  if (kinds.has("revert")) return "revert";
  if (kinds.has("start")) return cost === "restart" ? "restart" : "start";
  if (kinds.has("stop")) return "stop";
  if (kinds.has("suspend")) return "suspend";
  if (kinds.has("repair")) return "repair";
  return kinds.has("await") && kinds.size === 1 ? "await" : "update";
}

function costWord(cost: Cost): string {
  return cost === "none" ? "" : cost;
}

type Color = "green" | "yellow" | "red" | "cyan" | "dim";
const colorCodes: Readonly<Record<Color, number>> = { red: 31, green: 32, yellow: 33, cyan: 36, dim: 2 };

const verbSign: Readonly<Record<Verb, string>> = {
  create: "+",
  start: "+",
  update: "~",
  repair: "~",
  restart: "↻",
  recreate: "±",
  revert: "↶",
  suspend: "■",
  stop: "■",
  remove: "-",
  await: "…",
};

const verbColor: Readonly<Record<Verb, Color>> = {
  create: "green",
  start: "green",
  update: "cyan",
  repair: "cyan",
  restart: "yellow",
  recreate: "yellow",
  revert: "yellow",
  suspend: "yellow",
  stop: "yellow",
  remove: "red",
  await: "dim",
};

function painter(color: boolean): (text: string, tint: Color) => string {
  return (text, tint) => (color ? `\u001b[${colorCodes[tint]}m${text}\u001b[0m` : text);
}
