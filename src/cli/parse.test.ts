import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../base/fault.ts";
import { argument, command, flag } from "./command.ts";
import { parse } from "./parse.ts";
import { readCount, readGrace, readPairs, readSize } from "./value.ts";

const run = command({
  flags: {
    interactive: flag.toggle("", { short: "i" }),
    tty: flag.toggle("", { short: "t" }),
    env: flag.list("NAME=VALUE", "", { short: "e" }),
    publish: flag.list("PORTS", "", { short: "p" }),
    name: flag.text("NAME", ""),
    hostname: flag.text("NAME", "", { short: "h" }),
    pull: flag.text("WHEN", "", { offers: ["missing", "always", "never"] }),
    pidsLimit: flag.parsed("NUMBER", "", readCount),
  },
  args: { image: argument.one("IMAGE", "what to run"), command: argument.program("", 0) },
  run: () => Promise.resolve(),
});
const stop = command({
  flags: { all: flag.toggle("", { short: "a" }) },
  args: { instances: argument.some("INSTANCE", "which") },
  run: () => Promise.resolve(),
});

const flagsOf = (...words: string[]) => parse(run, "croft run", words).flags;

function refused(words: readonly string[], declared = run): { message: string; hint: string | undefined } {
  try {
    parse(declared, "croft run", words);
  } catch (error) {
    assert.ok(isFault(error, "invalid"));
    return error;
  }
  assert.fail(`${words.join(" ")} is taken`);
}

test("flags are written as docker has them", () => {
  assert.equal(flagsOf("-it", "box")["tty"], true);
  assert.equal(flagsOf("-it", "box")["interactive"], true);
  assert.deepEqual(flagsOf("-e", "A=1", "--env=B=2", "-eC=3", "-e=D=4", "box")["env"], ["A=1", "B=2", "C=3", "D=4"]);
  assert.deepEqual(flagsOf("-itp", "80:80", "box")["publish"], ["80:80"]);
  assert.equal(flagsOf("--name", "a", "--name=b", "box")["name"], "b");
  assert.equal(flagsOf("--tty", "--no-tty", "box")["tty"], false);
  assert.equal(flagsOf("--tty=false", "box")["tty"], false);
  assert.equal(flagsOf("--pids-limit", "10", "box")["pidsLimit"], 10);
});

test("a value may begin with a dash when it is attached", () => {
  assert.equal(flagsOf("--name=-x", "box")["name"], "-x");
});

test("what follows the image belongs to the program, flags and all", () => {
  const { args, flags } = parse(run, "croft run", ["-i", "box", "sh", "-t", "--name", "x", "--", "y"]);
  assert.deepEqual(args, { image: "box", command: ["sh", "-t", "--name", "x", "--", "y"] });
  assert.equal(flags["tty"], false);
});

test("two dashes right after the first word are kubectl's way to say the same", () => {
  assert.deepEqual(parse(run, "croft run", ["box", "--", "ls", "--", "-l"]).args["command"], ["ls", "--", "-l"]);
});

test("elsewhere flags may follow arguments, and two dashes end them", () => {
  const { args, flags } = parse(stop, "croft stop", ["web", "-a", "db", "--", "-odd"]);
  assert.deepEqual(args["instances"], ["web", "db", "-odd"]);
  assert.equal(flags["all"], true);
});

test("every command takes the flags of every command", () => {
  const { flags } = parse(stop, "croft stop", ["--json", "--root", "/x", "web", "--no-color"]);
  assert.deepEqual([flags["json"], flags["root"], flags["color"]], [true, "/x", false]);
});

test("a command's own letter goes before the one of every command", () => {
  assert.equal(flagsOf("-h", "web.example", "box")["hostname"], "web.example");
  assert.equal(parse(stop, "croft stop", ["-h"]).flags["help"], true);
});

test("what is unknown is answered with what was meant", () => {
  assert.equal(refused(["--nmae", "x", "box"]).hint, "did you mean --name?");
  assert.equal(refused(["--pids_limit", "1", "box"]).hint, "did you mean --pids-limit?");
  assert.equal(refused(["--pull", "alway", "box"]).hint, "did you mean --pull always?");
  assert.equal(refused(["-z", "box"]).message, "croft run has no flag -z");
});

test("what is missing is named", () => {
  assert.equal(refused([]).message, "croft run needs IMAGE: what to run");
  assert.equal(refused(["box", "--name"], stop).message, "croft run has no flag --name");
  assert.equal(refused(["--name"]).message, "--name needs a value: --name NAME");
  assert.match(refused(["--pids-limit", "many", "box"]).message, /^--pids-limit: "many" is not a whole number/);
});

test("too many arguments are refused instead of dropped", () => {
  const tag = command({ args: { image: argument.one("IMAGE", "") }, run: () => Promise.resolve() });
  assert.equal(refused(["a", "b"], tag).message, 'croft run does not take "b"');
});

test("sizes, times and pairs are read as docker has them, and as the language has them", () => {
  assert.deepEqual(["512m", "1g", "64k", "1024", "512MiB", "1.5GB"].map(readSize), [
    "512MiB",
    "1GiB",
    "64KiB",
    "1024B",
    "512MiB",
    "1.5GB",
  ]);
  assert.throws(() => readSize("much"), { reason: "invalid" });
  assert.deepEqual(["10", "500ms"].map(readGrace), ["10s", "500ms"]);
  assert.deepEqual(readPairs(["A=1", "B=x=y", "HOME", "UNSET"], { HOME: "/root" }), {
    A: "1",
    B: "x=y",
    HOME: "/root",
  });
  assert.throws(() => readPairs(["=x"]), { reason: "invalid" });
});
