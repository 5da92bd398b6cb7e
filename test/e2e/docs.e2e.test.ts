import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { globSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { checkout, TestDaemon } from "./daemon.ts";
import { blocksOf, commandsOf } from "./doc-block.ts";

/** What the documentation shows, typed in: each page in one shell from its top to its end, against a real daemon. */
let daemon: TestDaemon;

before(async () => {
  daemon = await TestDaemon.start();
});

after(async () => {
  await daemon?.[Symbol.asyncDispose]();
});

interface Try {
  readonly place: string;
  readonly script: string;
  readonly exit: number;
  readonly shown: readonly string[];
}

/** For a whole page; one takes seconds. What did not come to its end by then fails with the command that hung. */
const limitMs = 120_000;

/** Between the output of one command and the next. Control characters never occur in what the pages show. */
const separator = "\u001e";

function triesOf(page: string): readonly Try[] {
  return blocksOf(readFileSync(join(checkout, page), "utf8")).flatMap((block): Try[] => {
    const place = `${page}:${block.line}`;
    if (block.mark?.kind === "file") {
      const name = block.mark.name;
      const script = `mkdir -p "$(dirname ${name})"; cat > ${name} <<'END_OF_FILE'\n${block.lines.join("\n")}\nEND_OF_FILE`;
      return [{ place, script, exit: 0, shown: [] }];
    }
    if (block.mark === undefined) return [];
    const { exit } = block.mark;
    const commands = commandsOf(block);
    return commands.map(({ text, shown }, index) => ({
      place: `${place}: ${text}`,
      script: text,
      exit: index === commands.length - 1 ? exit : 0,
      shown: shown.filter((line) => line.trim() !== "" && line.trim() !== "…"),
    }));
  });
}

/** Times, addresses and distances differ from one run to the next; what else is shown must come as it is shown. */
function comparable(line: string): string {
  return line
    .replaceAll(/\b10\.86(\.\d+){2}\b/g, "ADDRESS")
    .replaceAll(/\b\d+(\.\d+)? (ms|s|min|m)\b/g, "TIME")
    .replaceAll(/\s+/g, " ")
    .trim();
}

const pages = globSync(["*.md", "docs/**/*.md"], { cwd: checkout }).filter((page) => triesOf(page).length > 0);
assert.ok(pages.includes("docs/guide.md"), "the guide holds nothing to try");

for (const page of pages) {
  describe(page, () => {
    let said: readonly string[] = [];
    const tries = triesOf(page);

    before(() => {
      const home = join(daemon.root, "pages", page);
      mkdirSync(home, { recursive: true });
      // Standard input is empty for each command: a page that makes somebody answer says so by `--yes`.
      const script = tries.map((one) => `{\n${one.script}\n} </dev/null\nprintf '\\036%d\\036' $?\n`).join("");
      const { stdout } = spawnSync("bash", ["-c", `exec 2>&1\n${script}`], {
        cwd: home,
        encoding: "utf8",
        timeout: limitMs,
        env: {
          ...process.env,
          HOME: home,
          PATH: `${join(checkout, "bin")}:${process.env["PATH"]}`,
          CROFT_ROOT: daemon.root,
          NO_COLOR: "1",
        },
      });
      said = stdout.split(separator);
    });

    for (const [index, { place, exit, shown }] of tries.entries()) {
      test(place, () => {
        const output = said[index * 2] ?? "";
        assert.equal(Number(said[index * 2 + 1]), exit, output);
        const there = new Set(output.split("\n").map(comparable));
        const missing = shown.filter((line) => !there.has(comparable(line)));
        assert.deepEqual(missing, [], `these lines are shown, but this came:\n${output}`);
      });
    }
  });
}
