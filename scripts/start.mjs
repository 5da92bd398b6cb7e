// npm start, after the set-up: the daemon in the background, examples/hello until it is healthy, and what to do next.
import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { root, say } from "./setup/node.mjs";

const socketPath = "/run/croft/croft.sock";
const logPath = "/var/log/croftd.log";
const patienceMs = 30_000;
/** Where examples/hello is published. */
const url = "http://localhost:8080";

if (await answers()) say("croftd is running");
else await startDaemon();

const croft = join(root, "bin", "croft");
const hello = join(root, "examples", "hello", "croft.toml");
const isThere = hasNothingToDo();
const { status } = spawnSync(croft, ["up", hello, "--yes"], { stdio: "inherit" });
if (status !== 0) process.exit(status ?? 1);
// Where it changed something it has shown what runs.
if (isThere) {
  console.log();
  spawnSync(croft, ["ps"], { stdio: "inherit" });
}
const answer = await fetch(url).catch((error) => error);
console.log(`
${answer.ok ? `It answers:  ${url}` : `But ${url} does not answer (${answer.status ?? answer.cause ?? answer}). Look with: npx croft logs front`}

From here the command line is npx croft:

  npx croft ps                 what runs
  npx croft logs greeter -f    what it says
  npx croft exec front sh      look inside
  npx croft plan ${relative(hello)}
  npx croft down hello         stop and remove it
  npx croft doctor             what this machine can do

Then read docs/guide.md: ten minutes from here to your own stack.
`);
if (!answer.ok) process.exitCode = 1;

function hasNothingToDo() {
  const { status, stdout } = spawnSync(croft, ["plan", hello, "--json"], { encoding: "utf8" });
  return status === 0 && JSON.parse(stdout).steps?.length === 0;
}

/** Starts croftd so that it outlives this terminal, and waits until it answers. */
async function startDaemon() {
  say(`starting croftd in the background (log: ${logPath})`);
  mkdirSync("/var/log", { recursive: true });
  const log = openSync(logPath, "a");
  const daemon = spawn(join(root, "bin", "croftd"), [], { detached: true, stdio: ["ignore", log, log], cwd: "/" });
  daemon.unref();
  closeSync(log);
  const ended = new Promise((resolve) => daemon.once("exit", resolve));
  const untilMs = Date.now() + patienceMs;
  while (!(await answers())) {
    const exited = await Promise.race([ended.then(() => true), sleep(100).then(() => false)]);
    if (exited || Date.now() > untilMs) {
      console.error(`croftd did not start. The end of ${logPath}:\n\n${tail(logPath)}`);
      process.exit(1);
    }
  }
}

function answers() {
  return new Promise((resolve) => {
    if (!existsSync(socketPath)) return resolve(false);
    const probe = connect(socketPath);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

function tail(path) {
  return readFileSync(path, "utf8").split("\n").slice(-15).join("\n");
}

function relative(path) {
  return path.startsWith(`${process.cwd()}/`) ? path.slice(process.cwd().length + 1) : path;
}
