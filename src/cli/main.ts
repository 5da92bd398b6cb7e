import { closest } from "../base/closest.ts";
import { Fault } from "../base/fault.ts";
import type { Command } from "./command.ts";
import { processContext, type Context, type GlobalValues } from "./context.ts";
import { exitCode } from "./exit-code.ts";
import { fail } from "./failure.ts";
import { globalFlags } from "./global-flag.ts";
import { parse, readFlags, valuesOf } from "./parse.ts";
import { chapters, nodes, type Node, type Noun, type Verb } from "./tree.ts";

/** Does what the words say and returns the exit code. Never throws. */
export async function main(words: readonly string[], version: string): Promise<number> {
  // Until the words are read nobody has said how errors should look.
  let context = processContext({ json: words.includes("--json"), quiet: false, ...unsaid }, version);
  try {
    const { given, rest } = readFlags({ ...globalFlags, version: versionFlag }, "croft", words, true);
    const before = words.slice(0, words.length - rest.length);
    const globals = valuesOf(globalFlags, given) as unknown as GlobalValues & { readonly help: boolean };
    context = processContext(globals, version);
    if (given.has("version")) return await runVerb(findVerb("version"), "croft version", ["--client"], context);
    const [name, ...after] = rest;
    if (name === undefined || (name === "help" && after.length === 0)) {
      const { rootHelp } = await import("./help.ts");
      const asked = globals.help || name === "help";
      const screen = asked ? context.out : context.err;
      await screen.write(rootHelp(chapters, screen));
      return asked ? exitCode.ok : exitCode.usage;
    }
    if (name === "help") return await main([...after, "--help"], version);
    const node = find(nodes, name, "croft");
    if (node.kind === "verb") return await runVerb(node, `croft ${name}`, [...before, ...after], context);
    return await runNoun(node, [...before, ...after], context);
  } catch (thrown) {
    return await fail(Fault.from(thrown, "croft"), context);
  }
}

const unsaid = { color: undefined, root: undefined, host: undefined };
const versionFlag = { kind: "switch", brief: "Print the version", read: () => true } as const;

async function runNoun(noun: Noun, words: readonly string[], context: Context): Promise<number> {
  const { given, rest } = readFlags(globalFlags, `croft ${noun.name}`, words, true);
  const [name, ...after] = rest;
  if (name === undefined) {
    const { nounHelp } = await import("./help.ts");
    const screen = given.has("help") ? context.out : context.err;
    await screen.write(nounHelp(noun, screen));
    return given.has("help") ? exitCode.ok : exitCode.usage;
  }
  const verb = find(noun.verbs, name, `croft ${noun.name}`);
  const before = words.slice(0, words.length - rest.length);
  return await runVerb(verb, `croft ${noun.name} ${name}`, [...before, ...after], context);
}

async function runVerb(verb: Verb, title: string, words: readonly string[], early: Context): Promise<number> {
  let context = early;
  let command: Command | undefined;
  try {
    command = await verb.load();
    const parsed = parse(command, title, words);
    context = processContext(parsed.flags as unknown as GlobalValues, early.version);
    if (parsed.flags["help"] === true) {
      const { commandHelp } = await import("./help.ts");
      await context.out.write(commandHelp(title, verb.brief, command, context.out));
      return exitCode.ok;
    }
    return (await command.run(parsed, context)) ?? exitCode.ok;
  } catch (thrown) {
    return await fail(Fault.from(thrown, title), context, command);
  }
}

function find<N extends Node>(among: readonly N[], name: string, title: string): N {
  const node = among.find((candidate) => candidate.name === name);
  if (node !== undefined) return node;
  const shown = among.filter((candidate) => candidate.kind === "noun" || candidate.hidden !== true);
  const near = closest(
    name,
    shown.map((candidate) => candidate.name),
  );
  throw new Fault("invalid", `there is no command ${title} ${name}`, {
    hint: near === undefined ? `see: ${title} --help` : `did you mean ${title} ${near}?`,
  });
}

function findVerb(name: string): Verb {
  return nodes.find((node) => node.name === name) as Verb;
}
