import { flagName, type Argument, type Command, type Flag, type Flags } from "./command.ts";
import { globalFlags } from "./global-flag.ts";
import type { Paint } from "./paint.ts";
import type { Chapter, Noun } from "./tree.ts";

/** The first page: what there is, by chapters. */
export function rootHelp(chapters: readonly Chapter[], paint: Paint): string {
  const blocks = chapters.map(({ title, nodes }) =>
    section(
      title,
      nodes
        .filter((node) => node.kind === "noun" || node.hidden !== true)
        .map((node) => [
          node.name,
          node.kind === "noun" ? `${node.brief}: ${node.verbs.map((verb) => verb.name).join(", ")}` : node.brief,
        ]),
      paint,
    ),
  );
  return [
    "Croft turns Linux machines you own into your own cloud: one file declares what runs.\n",
    `${paint("usage", "bold")}  croft COMMAND [FLAGS] [ARGUMENTS]\n`,
    ...blocks,
    flagSection("Flags of every command", globalFlags, paint),
    `More about a command: croft COMMAND --help\n`,
  ].join("\n");
}

export function nounHelp(noun: Noun, paint: Paint): string {
  return [
    `${noun.brief}.\n`,
    `${paint("usage", "bold")}  croft ${noun.name} COMMAND [FLAGS] [ARGUMENTS]\n`,
    section(
      "Commands",
      noun.verbs.map(({ name, brief }) => [name, brief]),
      paint,
    ),
    `More about a command: croft ${noun.name} COMMAND --help\n`,
  ].join("\n");
}

export function commandHelp(title: string, brief: string, command: Command, paint: Paint): string {
  const args = Object.values(command.args).map((arg): [string, string] => [shownArgument(arg), arg.brief]);
  return [
    `${brief}.\n`,
    `${paint("usage", "bold")}  ${usageLine(title, command)}\n`,
    ...(command.detail === undefined ? [] : [`${command.detail}\n`]),
    ...(args.length === 0 ? [] : [section("Arguments", args, paint)]),
    ...(Object.keys(command.flags).length === 0 ? [] : [flagSection("Flags", command.flags, paint)]),
    ...(command.examples === undefined ? [] : [section("Examples", command.examples, paint)]),
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

function flagSection(title: string, flags: Flags, paint: Paint): string {
  return section(
    title,
    Object.entries(flags).map(([key, flag]) => [shownFlag(key, flag), briefOf(flag)]),
    paint,
  );
}

/** What a flag does and, where it takes one of a few words, which. */
export function briefOf({ brief, offers, kind }: Flag<unknown>): string {
  const words = Array.isArray(offers) ? `: ${offers.join(", ")}` : "";
  return `${brief}${words}${kind === "list" ? " (may be repeated)" : ""}`;
}

function section(title: string, lines: readonly (readonly [string, string])[], paint: Paint): string {
  const width = Math.max(0, ...lines.map(([left]) => left.length));
  return `${paint(title, "bold")}\n${lines.map(([left, right]) => `  ${paint(left.padEnd(width), "accent")}  ${right}\n`).join("")}`;
}
