/**
 * What a page of the documentation asks to be tried. A comment before a fenced block says how:
 *
 *     <!-- run -->             a console block: its commands are run, and each line it shows must come
 *     <!-- run: exit 7 -->     the same; the last command ends with this code
 *     <!-- file: web.toml -->  the block is the file of this name, written before what follows it
 *
 * Within shown output a line that is `…` alone stands for lines left out.
 */
export interface DocBlock {
  /** The line of the fence, from 1. */
  readonly line: number;
  /** The word after the fence: `console`, `toml`; empty when there is none. */
  readonly language: string;
  readonly lines: readonly string[];
  readonly mark?: { readonly kind: "run"; readonly exit: number } | { readonly kind: "file"; readonly name: string };
}

export interface DocCommand {
  readonly text: string;
  /** The lines that are shown beneath it. */
  readonly shown: readonly string[];
}

/** Every fenced block of a page, in order. Throws an Error that names the line of a mark that leads to nothing. */
export function blocksOf(markdown: string): readonly DocBlock[] {
  const blocks: DocBlock[] = [];
  const lines = markdown.split("\n");
  let mark: DocBlock["mark"];
  for (let at = 0; at < lines.length; at += 1) {
    const text = lines[at] ?? "";
    const fence = /^(`{3,})(\w*)/.exec(text);
    if (fence !== null) {
      const end = lines.indexOf(fence[1] ?? "", at + 1);
      if (end < 0) throw new Error(`line ${at + 1}: the fence is never closed`);
      const block = { line: at + 1, language: fence[2] ?? "", lines: lines.slice(at + 1, end) };
      if (mark?.kind === "run" && block.language !== "console")
        throw new Error(`line ${at + 1}: only console blocks can be run`);
      blocks.push(mark === undefined ? block : { ...block, mark });
      at = end;
      mark = undefined;
    } else if (mark !== undefined && text.trim() !== "") {
      throw new Error(`line ${at + 1}: a mark stands right before its block`);
    }
    mark = readMark(text) ?? mark;
  }
  if (mark !== undefined) throw new Error("the page ends with a mark that has no block");
  return blocks;
}

function readMark(text: string): DocBlock["mark"] | undefined {
  const run = /^<!-- run(?:: exit (\d+))? -->$/.exec(text);
  if (run !== null) return { kind: "run", exit: Number(run[1] ?? 0) };
  const file = /^<!-- file: (\S+) -->$/.exec(text);
  return file?.[1] === undefined ? undefined : { kind: "file", name: file[1] };
}

/** The commands of a console block: lines after `$ `, each with what is shown beneath it. */
export function commandsOf({ line, lines }: DocBlock): readonly DocCommand[] {
  const commands: { text: string; shown: string[] }[] = [];
  for (const text of lines) {
    if (text.startsWith("$ ")) commands.push({ text: text.slice(2), shown: [] });
    else if (commands.length === 0) throw new Error(`line ${line}: a console block begins with "$ "`);
    else commands.at(-1)?.shown.push(text);
  }
  return commands;
}
