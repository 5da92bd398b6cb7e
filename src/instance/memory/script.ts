import type { Clock } from "../../base/call.ts";

/**
 * Just enough of a shell to imitate programs: `sleep`, `echo`, `printf`, `cat`, `exit`, `trap`, and `for` and `while`
 * loops over them, separated by `;`. Also a bare `["sleep", "5"]` or `["exit", "3"]`.
 */
export interface ScriptIo {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  write(stream: "stdout" | "stderr", text: string): void;
  /** The next input, or undefined at its end. */
  read(): Promise<string | undefined>;
  /** What a signal does from now on: the exit code to end with, or nothing. */
  trap(signal: string, exitCode: number | "ignore"): void;
}

/** The exit code. Rejects when `io.signal` aborts. */
export async function runScript(argv: readonly string[], io: ScriptIo): Promise<number> {
  const isShell = argv[0]?.endsWith("sh") === true && argv[1] === "-c";
  return (await runList(isShell ? (argv[2] ?? "") : argv.join(" "), new Map(), io)) ?? 0;
}

type Variables = ReadonlyMap<string, string>;

/** Undefined when the list ends without `exit`. */
async function runList(text: string, variables: Variables, io: ScriptIo): Promise<number | undefined> {
  for (const statement of statementsOf(text)) {
    const code = await runStatement(statement, variables, io);
    if (code !== undefined) return code;
  }
  return undefined;
}

async function runStatement(statement: string, variables: Variables, io: ScriptIo): Promise<number | undefined> {
  const loop = /^(for (\w+) in (.*?)|while true); ?do (.*); ?done$/s.exec(statement);
  if (loop === null) return runCommand(statement, variables, io);
  const [, , name = "", words = "", body = ""] = loop;
  const values = name === "" ? endless() : words.split(" ");
  for (const value of values) {
    const code = await runList(body, new Map([...variables, [name, value]]), io);
    if (code !== undefined) return code;
  }
  return undefined;
}

function* endless(): Generator<string> {
  for (;;) yield "";
}

/** Splits at semicolons, but not within quotes or a loop. */
function statementsOf(text: string): string[] {
  const found: string[] = [];
  let open = 0;
  let current = "";
  for (const part of text.match(/'[^']*'|[^;']+|;/g) ?? []) {
    if (part === ";" && open === 0) {
      found.push(current.trim());
      current = "";
      continue;
    }
    if (!part.startsWith("'"))
      open += (part.match(/\b(for|while)\b/g) ?? []).length - (part.match(/\bdone\b/g) ?? []).length;
    current += part;
  }
  return [...found, current.trim()].filter((statement) => statement !== "");
}

async function runCommand(statement: string, variables: Variables, io: ScriptIo): Promise<number | undefined> {
  const toStderr = statement.endsWith(">&2");
  const filled = statement.replace(/>&2$/, "").replaceAll(/\$(\w+)/g, (_, name: string) => variables.get(name) ?? "");
  const words = (filled.match(/'[^']*'|\S+/g) ?? []).map((word) => word.replace(/^'|'$/g, ""));
  const [command = "", ...args] = words;
  const stream = toStderr ? "stderr" : "stdout";
  if (command === "sleep") await io.clock.sleep(Math.min(Number(args[0]) * 1000, 2 ** 31 - 1), io.signal);
  else if (command === "echo") io.write(stream, `${args.join(" ")}\n`);
  else if (command === "printf") io.write(stream, args.join(" "));
  else if (command === "cat") await copy(stream, io);
  else if (command === "trap")
    io.trap(args[1] ?? "", /^exit (\d+)$/.test(args[0] ?? "") ? Number(args[0]?.slice(5)) : "ignore");
  else if (command === "exit") return Number(args[0] ?? 0);
  else if (command !== "true") return 127;
  return undefined;
}

async function copy(stream: "stdout" | "stderr", io: ScriptIo): Promise<void> {
  for (let text = await io.read(); text !== undefined; text = await io.read()) io.write(stream, text);
}
