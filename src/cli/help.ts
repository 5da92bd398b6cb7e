import { flagName, type Argument, type Command, type Flag, type Flags } from "./command.ts";
import { globalFlags } from "./global-flag.ts";
import type { Paint } from "./paint.ts";
import type { Chapter, Noun } from "./tree.ts";
import { wrap } from "./width.ts";

/** What a page of help is written for. */
export interface Page {
  readonly paint: Paint;
  /** Infinity where nobody looks at it. */
  readonly columns: number;
}

/** The first page: what there is, by chapters. */
export function rootHelp(chapters: readonly Chapter[], page: Page): string {
  const blocks = chapters.map(({ title, nodes }) =>
    section(
      title,
      nodes
        .filter((node) => node.kind === "noun" || node.hidden !== true)
        .map((node) => [
          node.name,
          node.kind === "noun" ? `${node.brief}: ${node.verbs.map((verb) => verb.name).join(", ")}` : node.brief,
        ]),
      page,
    ),
  );
  return [
    `${wrap("Croft turns Linux machines you own into your own cloud: one file declares what runs.", page.columns).join("\n")}\n`,
    `${page.paint("usage", "bold")}  croft COMMAND [FLAGS] [ARGUMENTS]\n`,
    ...blocks,
    flagSection("Flags of every command", globalFlags, page),
    `More about a command: croft COMMAND --help\n`,
  ].join("\n");
}

export function nounHelp(noun: Noun, page: Page): string {
  return [
    `${noun.brief}.\n`,
    `${page.paint("usage", "bold")}  croft ${noun.name} COMMAND [FLAGS] [ARGUMENTS]\n`,
    section(
      "Commands",
      noun.verbs.map(({ name, brief }) => [name, brief]),
      page,
    ),
    `More about a command: croft ${noun.name} COMMAND --help\n`,
  ].join("\n");
}

export function commandHelp(title: string, brief: string, command: Command, page: Page): string {
  const args = Object.values(command.args).map((arg): [string, string] => [shownArgument(arg), arg.brief]);
  return [
    `${brief}.\n`,
    `${page.paint("usage", "bold")}  ${usageLine(title, command)}\n`,
    ...(command.detail === undefined ? [] : [`${wrap(command.detail, page.columns).join("\n")}\n`]),
    ...(args.length === 0 ? [] : [section("Arguments", args, page)]),
    ...(Object.keys(command.flags).length === 0 ? [] : [flagSection("Flags", command.flags, page)]),
    ...(command.examples === undefined ? [] : [section("Examples", command.examples, page)]),
  ].join("\n");
}

/** `croft exec [FLAGS] INSTANCE COMMAND…` */
export function usageLine(title: string, command: Command): string {
  const flags = Object.keys(command.flags).length === 0 ? [] : ["[FLAGS]"];
  return [title, ...flags, ...Object.values(command.args).map(shownArgument)].join(" ");
}

/** `-e, --env NAME=VALUE` */
export function shownFlag(key: string, { short, placeholder }: Flag<unknown>): string {
  return `${short === undefined ? "    " : `-${short}, `}--${flagName(key)}${placeholder === undefined ? "" : ` ${placeholder}`}`;
}

function shownArgument({ placeholder, least, most }: Argument<unknown>): string {
  const name = most === "many" ? `${placeholder}…` : placeholder;
  return least === 0 ? `[${name}]` : name;
}

function flagSection(title: string, flags: Flags, page: Page): string {
  return section(
    title,
    Object.entries(flags).map(([key, flag]) => [shownFlag(key, flag), briefOf(flag)]),
    page,
  );
}

/** What a flag does and, where it takes one of a few words, which. */
export function briefOf({ brief, offers, kind }: Flag<unknown>): string {
  const words = Array.isArray(offers) ? `: ${offers.join(", ")}` : "";
  return `${brief}${words}${kind === "list" ? " (may be repeated)" : ""}`;
}

/** Beside each other where there is room for it, otherwise what it does beneath what it is. */
function section(title: string, lines: readonly (readonly [string, string])[], { paint, columns }: Page): string {
  const width = Math.max(0, ...lines.map(([left]) => left.length));
  const isWide = columns - width - 4 >= leastRoom;
  const indent = isWide ? width + 4 : 6;
  const shown = lines.map(([left, right]) => {
    const text = wrap(right, columns - indent).join(`\n${" ".repeat(indent)}`);
    const between = isWide ? " ".repeat(width - left.length + 2) : `\n${" ".repeat(indent)}`;
    return `  ${paint(left, "accent")}${between}${text}\n`;
  });
  return `${paint(title, "bold")}\n${shown.join("")}`;
}

/** Columns that a sentence needs to be read as one. */
const leastRoom = 30;
