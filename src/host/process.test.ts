import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { backgroundCall, systemClock } from "../base/call.ts";
import { Fault, isFault } from "../base/fault.ts";
import { findProgram, run, spawnDetached, stream } from "./process.ts";

const call = backgroundCall();

test("a program's output, code and input", async () => {
  const finished = await run(["sh", "-c", "cat; echo told >&2; exit 3"], { input: "given", okCodes: [3] }, call);
  assert.deepEqual(finished, { code: 3, stdout: "given", stderr: "told\n" });
});

test("arguments are passed as they are, and the environment is ours only as far as it is asked for", async () => {
  process.env["PROCESS_TEST_TOKEN"] = "secret";
  try {
    const { stdout } = await run(["env"], { env: { ADDED: "$(echo no shell)" } }, call);
    const lines = stdout.trim().split("\n").sort();
    assert.deepEqual(
      lines.map((line) => line.split("=")[0]),
      ["ADDED", "LANG", "PATH"],
    );
    assert.ok(lines.includes("ADDED=$(echo no shell)"));
  } finally {
    delete process.env["PROCESS_TEST_TOKEN"];
  }
});

test("a failure says what was attempted, and what the program said last", async () => {
  const failing = run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 7"], { attempted: "try it" }, call);
  await assert.rejects(failing, (error) => {
    assert.ok(isFault(error, "failed"));
    assert.equal(error.message, "try it: first\nthe reason");
    assert.deepEqual(error.detail, { code: "7" });
    return true;
  });
  await assert.rejects(run(["sh", "-c", "kill -TERM $$"], {}, call), (error) => {
    assert.ok(isFault(error, "failed"));
    assert.deepEqual(error.detail, { signal: "SIGTERM" });
    return true;
  });
});

test("a program that is not installed is unsupported, and the hint names its package", async () => {
  await assert.rejects(run(["no-such-program"], {}, call), isNotInstalled);
  await assert.rejects(run(["no-such-program"], { endsWithUs: true }, call), isNotInstalled);
  assert.throws(() => stream(["no-such-program"], {}, call), isNotInstalled);
  assert.throws(() => spawnDetached(["no-such-program"], {}), isNotInstalled);
  assert.equal(findProgram("no-such-program"), undefined);
  assert.equal(findProgram("sh"), existsSync("/usr/local/bin/sh") ? "/usr/local/bin/sh" : "/usr/bin/sh");
});

test("a working directory that is missing is not mistaken for a missing program", async () => {
  await assert.rejects(run(["true"], { cwd: "/no/such/place" }, call), (error) => isFault(error, "not-found"));
  assert.throws(
    () => stream(["true"], { cwd: "/no/such/place" }, call),
    (error) => isFault(error, "not-found"),
  );
});

test("an argument with a NUL byte is refused", async () => {
  await assert.rejects(run(["echo", "a\0b"], {}, call), (error) => error instanceof Fault);
});

test("more output than allowed is exhausted, and the program does not go on", async () => {
  const endless = run(["yes"], { maxOutputBytes: 100_000 }, call);
  await assert.rejects(endless, (error) => isFault(error, "exhausted"));
  const { stdout } = await run(["head", "-c", "100000", "/dev/zero"], { maxOutputBytes: 100_000 }, call);
  assert.equal(stdout.length, 100_000);
});

test("a deadline ends the program and everything it started", async () => {
  await inDirectory(async (directory) => {
    const marker = join(directory, "pid");
    const program = ["sh", "-c", `sleep 1000 & echo $! > ${marker}; echo out; wait`];
    await assert.rejects(run(program, { timeoutMs: 300 }, call), (error) => isFault(error, "timeout"));
    const { stdout } = await run(["cat", marker], {}, call);
    await gone(Number(stdout));
  });
});

test("cancelling ends a program, also one whose helper holds its output open", async () => {
  const controller = new AbortController();
  const cancellable = backgroundCall(systemClock, controller.signal);
  const running = run(["sh", "-c", "setsid sleep 2 & echo started; wait"], {}, cancellable);
  await call.clock.sleep(100);
  controller.abort();
  await assert.rejects(running, (error) => isFault(error, "cancelled"));
  await assert.rejects(run(["true"], {}, cancellable), (error) => isFault(error, "cancelled"));
});

test("a stream is followed while it runs, and killed as a whole", async () => {
  const streams = stream(["sh", "-c", "echo ready; cat; sleep 1000"], {}, call);
  streams.stdin.write("more\n");
  let seen = "";
  for await (const chunk of streams.stdout) {
    seen += String(chunk);
    if (seen === "ready\nmore\n") break;
  }
  streams.kill("SIGTERM");
  assert.deepEqual(await streams.exited, { code: null, signal: "SIGTERM" });
  streams.kill("SIGTERM");
});

test("cancelling the call kills a stream", async () => {
  const controller = new AbortController();
  const streams = stream(["sleep", "1000"], {}, backgroundCall(systemClock, controller.signal));
  controller.abort();
  assert.deepEqual(await streams.exited, { code: null, signal: "SIGKILL" });
});

test("a detached program is the leader of a session of its own and has the descriptors it was given", async () => {
  // Field 6 of its stat line is the session; the shell itself is read, so no program of its own is in between.
  const script = 'read -r line < /proc/self/stat; echo "$line" >&3';
  const detached = spawnDetached(["sh", "-c", script], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  assert.equal(detached.pipes[0], null);
  const pipe = detached.pipes[3];
  assert.ok(pipe !== undefined && pipe !== null && Symbol.asyncIterator in pipe);
  let line = "";
  for await (const chunk of pipe) line += String(chunk);
  assert.equal(Number(line.split(" ")[5]), detached.pid);
  assert.deepEqual(await detached.exited, { code: 0, signal: null });
});

test("what ends with us is killed when we are", async () => {
  await inDirectory(async (directory) => {
    const marker = join(directory, "pid");
    const inner = `
      const { run } = await import(${JSON.stringify(new URL("./process.ts", import.meta.url).href)});
      const { backgroundCall } = await import(${JSON.stringify(new URL("../base/call.ts", import.meta.url).href)});
      const script = "echo $$ > ${marker}; echo started >&2; exec sleep 1000";
      await run(["sh", "-c", script], { endsWithUs: true }, backgroundCall());`;
    const streams = stream([process.execPath, "--input-type=module", "-e", inner], {}, call);
    for (let tries = 0; tries < 500 && !existsSync(marker); tries += 1) await call.clock.sleep(10);
    await call.clock.sleep(50);
    process.kill(streams.pid, "SIGKILL");
    const { stdout } = await run(["cat", marker], {}, call);
    await gone(Number(stdout));
  });
});

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "process."));
  try {
    await body(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Waits until the process has ended; a zombie, whose new parent may be slow to wait for it, has. */
async function gone(pid: number): Promise<void> {
  for (let tries = 0; tries < 500; tries += 1) {
    const { stdout } = await run(["ps", "-o", "stat=", "-p", String(pid)], { okCodes: [0, 1] }, call);
    if (stdout === "" || stdout.startsWith("Z")) return;
    await call.clock.sleep(10);
  }
  assert.fail(`process ${pid} still runs`);
}

function isNotInstalled(error: unknown): boolean {
  return isFault(error, "unsupported") && error.hint === "install it: apt-get install no-such-program";
}
