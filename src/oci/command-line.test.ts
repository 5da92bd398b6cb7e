import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Fault } from "../base/fault.ts";
import { commands, globalsOf, parseCommandLine, valueOf, wordsOf } from "./command-line.ts";

const words = (text: string): string[] => text.split(" ");

test("what conmon calls is understood", () => {
  const line = parseCommandLine(
    words("--systemd-cgroup --log-format=json --log=/l create --bundle /b --pid-file /p --console-socket /s abc"),
  );
  assert.equal(line.command, "create");
  assert.deepEqual(line.words, ["abc"]);
  assert.equal(valueOf(line.globals, "log"), "/l");
  assert.ok(line.globals.has("systemd-cgroup"));
  assert.equal(valueOf(line.flags, "bundle"), "/b");
});

test("what containerd's shim calls is understood", () => {
  const line = parseCommandLine(words("--root /r --log /l --log-format json kill --all abc 9"));
  assert.deepEqual([line.command, ...line.words], ["kill", "abc", "9"]);
  assert.ok(line.flags.has("all"));
});

test("options are taken in every way that people write them", () => {
  for (const said of ["--bundle /b", "--bundle=/b", "-bundle /b", "-bundle=/b", "-b /b", "-b/b", "-b=/b"]) {
    assert.equal(valueOf(parseCommandLine(words(`create ${said} abc`)).flags, "bundle"), "/b", said);
    assert.equal(valueOf(parseCommandLine(words(`create abc ${said}`)).flags, "bundle"), "/b", `abc ${said}`);
  }
});

test("a switch may be said to be false", () => {
  assert.ok(!parseCommandLine(words("--debug=false state a")).globals.has("debug"));
  assert.ok(parseCommandLine(words("--debug=true state a")).globals.has("debug"));
});

test("short switches may be joined", () => {
  const { flags } = parseCommandLine(words("exec -td -e A=b -e C=d -u 1:2 abc ls -l"));
  assert.deepEqual([...flags.keys()], ["tty", "detach", "env", "user"]);
  assert.deepEqual(flags.get("env"), ["A=b", "C=d"]);
});

test("what follows the id of exec is the program's", () => {
  const line = parseCommandLine(words("exec -t abc ls --root / -- -d"));
  assert.deepEqual(line.words, ["abc", "ls", "--root", "/", "--", "-d"]);
  assert.ok(!line.flags.has("detach"));
});

for (const [argv, message] of [
  ["fly", /unknown command fly/],
  ["create", /the container's id is missing/],
  ["create a b", /"b" is one argument too many/],
  ["create --wings a", /create: unknown option --wings/],
  ["create -w a", /create: unknown option -w/],
  ["create a --bundle", /--bundle needs a value/],
  ["--wings create a", /unknown option --wings/],
  ["--root", /--root needs a value/],
  ["list a", /one argument too many/],
] as const) {
  test(`"${argv}" is refused`, () => {
    assert.throws(() => parseCommandLine(words(argv)), { name: "Fault", reason: "invalid", message });
  });
}

test("where to log is known of a command line that is wrong, and no word of the program is taken for it", () => {
  const said = globalsOf(words("--root /r --log=/l --wings -log-format json exec web nginx --log=/x --log /y"));
  assert.deepEqual(Object.fromEntries(said), { root: ["/r"], log: ["/l"], "log-format": ["json"] });
  assert.deepEqual([...globalsOf(words("--root log exec web --log=/x"))], [["root", ["log"]]]);
  assert.deepEqual([...globalsOf(words("--debug --log"))], [["log", [""]]]);
});

test("flags written out again mean the same", () => {
  const values = fc.string({ minLength: 1 }).filter((text) => text !== "true" && text !== "false");
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(commands)), fc.array(values), (command, values) => {
      const { flags } = commands[command as keyof typeof commands];
      const names = Object.entries(flags as Record<string, { takes: string }>);
      const said = values.flatMap((value, index) => {
        const [name, flag] = names[index % Math.max(1, names.length)] ?? [];
        return name === undefined ? [] : flag?.takes === "none" ? [`--${name}`] : [`--${name}=${value}`];
      });
      const id = command === "list" || command === "spec" || command === "features" ? [] : ["abc"];
      const first = parseCommandLine([command, ...said, ...id]);
      const again = parseCommandLine([command, ...wordsOf(first.flags), ...id]);
      assert.deepEqual([...again.flags], [...first.flags]);
    }),
  );
});

test("whatever words: understood, or a Fault", () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom(...Object.keys(commands), "--", "-", "-b", "--root", "--log=x", "--help", "-t=", "--=", "-="),
  );
  fc.assert(
    fc.property(fc.array(word), (argv) => {
      try {
        parseCommandLine(argv);
      } catch (error) {
        assert.ok(error instanceof Fault, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
