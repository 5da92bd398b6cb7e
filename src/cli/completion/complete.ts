import type { Client } from "../../client/client.ts";
import { argument, command as define, type Offers } from "../command.ts";
import { targetOf, type Context } from "../context.ts";
import { shownName } from "../instance/view.ts";
import { possible, type Candidate } from "./candidate.ts";

/** Somebody waits with a finger on the tab key: rather nothing than a late answer. */
const patienceMs = 500;

export const command = define({
  detail:
    "Prints candidates for the last word, one a line: the word, a tab, what it is. A line of `:file` or `:folder` asks " +
    "the shell to complete names of files.",
  args: { words: argument.program("The words after croft, the last one unfinished", 0) },
  async run({ args }, context) {
    // The daemon that the half-typed line names is the one to ask.
    const { words, offers, prefix } = await possible(args.words);
    const last = (args.words.at(-1) ?? "").slice(prefix.length);
    if (offers === "file" || offers === "folder") return await context.out.write(`:${offers}\n`);
    const named = offers === undefined ? [] : await namesOf(offers, args.words, context);
    const fitting = [...words, ...named].filter(({ word }) => word.startsWith(last));
    await context.out.write(
      fitting.map(({ word, brief }) => `${prefix}${word}${brief === undefined ? "" : `\t${brief}`}\n`).join(""),
    );
  },
});

/** Names that the daemon knows. None when it does not answer: a completion says nothing of errors. */
async function namesOf(offers: Offers, words: readonly string[], context: Context): Promise<readonly Candidate[]> {
  const signal = AbortSignal.timeout(patienceMs);
  try {
    const { connect } = await import("../../client/client.ts");
    return await ask(
      offers,
      connect(targetOf(valueOf("--root", words), valueOf("--host", words), context.env)),
      signal,
    );
  } catch {
    return [];
  }
}

async function ask(offers: Offers, client: Client, signal: AbortSignal): Promise<readonly Candidate[]> {
  switch (offers) {
    case "instance": {
      const { instances } = await client.instances.list({ all: true }, { signal });
      return instances.map((instance) => ({ word: shownName(instance), brief: instance.status }));
    }
    case "stack": {
      const { stacks } = await client.stacks.list({}, { signal });
      return stacks.map(({ name, status }) => ({ word: name, brief: status }));
    }
    case "image": {
      const { images } = await client.images.list({}, { signal });
      return images.flatMap(({ references }) => references.map((word) => ({ word })));
    }
    case "volume": {
      const { volumes } = await client.volumes.list({}, { signal });
      return volumes.map(({ stack, name }) => ({ word: `${stack}/${name}` }));
    }
    case "network": {
      const { networks } = await client.networks.list({}, { signal });
      return networks.map(({ stack, name }) => ({ word: `${stack}/${name}` }));
    }
    case "operation": {
      const { operations } = await client.operations.list({}, { signal });
      return operations.map(({ id, kind, subject }) => ({ word: id, brief: `${kind} of ${subject}` }));
    }
    default:
      return [];
  }
}

function valueOf(flag: string, words: readonly string[]): string | undefined {
  const joined = words.find((word) => word.startsWith(`${flag}=`))?.slice(flag.length + 1);
  const at = words.indexOf(flag);
  return joined ?? (at >= 0 && at < words.length - 2 ? words[at + 1] : undefined);
}
