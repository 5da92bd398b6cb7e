// The documentation is true as far as a machine can see without running anything: links lead somewhere, marks have their
// blocks, and stack files are what the language accepts (a warning may be what a page is about). test/e2e/docs.e2e.test.ts runs the commands.
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { checkStack } from "../../src/stack/check/check.ts";
import { blocksOf, commandsOf } from "../../test/e2e/doc-block.ts";

/** Returns what is wrong, one sentence a finding. */
export function checkDocs(root) {
  const pages = globSync(["*.md", "docs/**/*.md"], { cwd: root });
  return pages.flatMap((page) => {
    const text = readFileSync(join(root, page), "utf8");
    return [...brokenLinks(root, page, text), ...wrongBlocks(page, text)];
  });
}

function brokenLinks(root, page, text) {
  const prose = text.replaceAll(/^```[\s\S]*?^```/gm, "").replaceAll(/`[^`\n]*`/g, "");
  const targets = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]);
  return targets.flatMap((target) => {
    if (/^[a-z]+:/.test(target)) return [];
    const [path, anchor] = target.split("#");
    const file = path === "" ? page : join(dirname(page), path);
    if (!existsSync(join(root, file))) return [`${page}: ${target} leads to no file`];
    if (anchor === undefined || anchorsOf(readFileSync(join(root, file), "utf8")).has(anchor)) return [];
    return [`${page}: ${target} leads to no heading`];
  });
}

/** Headings as links name them: lower-case, without punctuation, dashes for spaces. */
function anchorsOf(text) {
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map((match) => match[1]);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

function wrongBlocks(page, text) {
  try {
    return blocksOf(text).flatMap((block) => {
      if (block.mark?.kind === "run") commandsOf(block);
      return isStack(page, block) ? stackProblems(page, block) : [];
    });
  } catch (error) {
    return [`${page}: ${error.message}`];
  }
}

/** Whole stack files name their stack or show a container; the reference's one-line examples and other TOML do neither. */
function isStack(page, { language, lines }) {
  if (language !== "toml" || page.startsWith("docs/reference/")) return false;
  return lines.some((line) => /^stack\s*=|^\[(container|image)\./.test(line));
}

function stackProblems(page, { line, lines }) {
  const { problems } = checkStack({ path: page, text: lines.join("\n"), folder: "/example", format: "toml" });
  const errors = problems.filter(({ severity }) => severity === "error");
  return errors.map((problem) => `${page}:${line + problem.line}: ${problem.message}`);
}
