import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Instance, RunStart } from "../../client/message.ts";
import { argument, command as define, flag } from "../command.ts";
import { printJson, say, type Context } from "../context.ts";
import { parseEnvFile } from "../env-file.ts";
import { inputFile } from "../input-file.ts";
import { progressView } from "../progress.ts";
import { converse, detached } from "../session.ts";
import { readCount, readGrace, readPairs, readSize } from "../value.ts";
import { processExitCode, sessionTerminal } from "./process.ts";

export const command = define({
  detail:
    "Flags come before IMAGE; what follows it belongs to the program. The exit code is that of the program. " +
    "Ctrl-P Ctrl-Q leaves an interactive one running.",
  examples: [
    ["croft run --rm -it debian:12 bash", "a shell that leaves nothing behind"],
    ["croft run -d --name web -p 8080:80 nginx:1.27", "a server in the background"],
    ["croft run --rm --as microvm alpine uname -r", "the same image with a kernel of its own"],
    ["croft run -d --as vm --ssh-key ~/.ssh/id_ed25519.pub debian-12.qcow2", "a full machine"],
    ["croft run --rm -v data:/data -m 256MiB alpine du -sh /data", "with a volume and a limit"],
  ],
  flags: {
    detach: flag.toggle("Run it in the background and print its name", { short: "d" }),
    interactive: flag.toggle("Give it standard input", { short: "i" }),
    tty: flag.toggle("Give it a terminal", { short: "t" }),
    rm: flag.toggle("Remove it when it exits"),
    name: flag.text("NAME", "What to call it; one is made up otherwise"),
    as: flag.text(
      "KIND",
      "What to run it as: a container, or the same image with a kernel of its own, or a disk image as a full machine",
      {
        offers: ["container", "microvm", "vm"],
      },
    ),
    diskSize: flag.parsed("SIZE", "Of a vm: how large its disk is; as the image otherwise", readSize),
    firmware: flag.text("FIRMWARE", "Of a vm: what starts it", { offers: ["bios", "uefi", "uefi-secure"] }),
    sshKey: flag.list("KEY|FILE", "Of a vm: a public key that may log in over ssh", { offers: "file" }),
    env: flag.list("NAME=VALUE", "An environment variable; NAME alone takes the one from here", { short: "e" }),
    envFile: flag.list("FILE", "Environment variables from a file, a line each", { offers: "file" }),
    publish: flag.list("PORTS", "Publish a port: 8080:80, 127.0.0.1:53:53/udp", { short: "p" }),
    volume: flag.list("MOUNT", "Mount a volume or a folder: name:/path, /host/path:/path, either with :ro", {
      short: "v",
      offers: "volume",
    }),
    tmpfs: flag.list("PATH", "An empty folder in memory"),
    network: flag.list("NETWORK", "Join a network of a stack: shop/back", { offers: "network" }),
    user: flag.text("USER", "Who runs it: name, uid or uid:gid", { short: "u" }),
    workdir: flag.text("PATH", "Where it starts", { short: "w" }),
    hostname: flag.text("NAME", "Its host name", { short: "h" }),
    entrypoint: flag.text("PROGRAM", "Instead of the image's entrypoint"),
    memory: flag.parsed("SIZE", "At most so much memory: 512MiB, 512m", readSize, { short: "m" }),
    cpus: flag.text("NUMBER", "At most so many cores: 1.5"),
    pidsLimit: flag.parsed("NUMBER", "At most so many processes", readCount),
    restart: flag.text("POLICY", "Start it again when it exits", { offers: ["no", "never", "on-failure", "always"] }),
    readOnly: flag.toggle("Its root cannot be written to"),
    capAdd: flag.list("CAPABILITY", "Grant a capability: NET_ADMIN"),
    capDrop: flag.list("CAPABILITY", "Take a capability away; ALL takes every one"),
    label: flag.list("NAME=VALUE", "A label", { short: "l" }),
    pull: flag.text("WHEN", "When to fetch the image", { offers: ["missing", "always", "never"] }),
    stopSignal: flag.text("SIGNAL", "What asks it to end: SIGTERM"),
    stopTimeout: flag.parsed("DURATION", "How long it may take to end: 10s", readGrace),
  },
  args: {
    image: argument.one("IMAGE", "A reference such as nginx:1.27, or an image built here", { offers: "image" }),
    command: argument.program("The program and its arguments; the image's own by default", 0),
  },
  exitCodeOf: processExitCode,
  async run({ flags, args }, context) {
    const { detach } = flags;
    const isMachine = flags.as === "vm";
    // A console is a terminal.
    const tty = flags.tty || (isMachine && !detach && context.keyboard.isTTY === true && context.out.isTerminal);
    const interactive = flags.interactive && !detach;
    const terminal = tty && !isMachine ? sessionTerminal(context, interactive) : undefined;
    const env = { ...(await readEnvFiles(flags.envFile, context)), ...readPairs(flags.env, context.env) };
    const duplex = context.client.instances.run();
    await duplex.send({
      start: present({
        image: args.image,
        command: args.command,
        name: flags.name,
        remove: flags.rm,
        detach,
        interactive,
        terminal,
        env,
        publish: flags.publish,
        volumes: flags.volume.map((mount) => absoluteMount(mount, context.directory)),
        tmpfs: flags.tmpfs,
        networks: flags.network,
        user: flags.user,
        workdir: flags.workdir,
        hostname: flags.hostname,
        entrypoint: flags.entrypoint === undefined ? [] : [flags.entrypoint],
        memory: flags.memory,
        cpus: flags.cpus,
        pids: flags.pidsLimit,
        restart: flags.restart === "no" ? "never" : flags.restart,
        readOnly: flags.readOnly,
        capAdd: flags.capAdd,
        capDrop: flags.capDrop,
        labels: readPairs(flags.label),
        pull: flags.pull,
        stopSignal: flags.stopSignal,
        stopGrace: flags.stopTimeout,
        as: flags.as,
        diskSize: flags.diskSize,
        firmware: flags.firmware,
        sshKeys: await readKeys(flags.sshKey, context),
      }),
    });
    const view = progressView(context.err, context.clock, context.quiet || context.json);
    let started: Instance | undefined;
    const options = {
      tty: tty && !detach,
      input: interactive || (isMachine && !detach),
      detachable: true,
      awaitStarted: true,
      signalsEndUs: isMachine,
      onAnswer: (answer: { readonly progress?: Parameters<typeof view.update>[0]; readonly started?: Instance }) => {
        if (answer.progress !== undefined) view.update(answer.progress);
        if (answer.started === undefined) return;
        started = answer.started;
        view.finish();
      },
    };
    try {
      const ended = await converse(duplex, options, context);
      if (detach && started !== undefined) return await printStarted(started, context);
      if (ended === detached) {
        await say(context, `\r\nit goes on: croft attach ${started?.name ?? "NAME"}`);
        return;
      }
      return ended;
    } finally {
      view.finish();
    }
  },
});

async function printStarted(started: Instance, context: Context): Promise<void> {
  if (context.json) await printJson(context, started);
  else await context.out.write(`${started.name}\n`);
}

/** Without what was not said: the daemon's defaults are the only ones. */
function present(start: { readonly [Key in keyof RunStart]: RunStart[Key] | undefined }): RunStart {
  return Object.fromEntries(Object.entries(start).filter(([, value]) => value !== undefined && value !== false));
}

async function readEnvFiles(paths: readonly string[], { directory, env }: Context): Promise<Record<string, string>> {
  const texts = await Promise.all(paths.map((path) => readFile(inputFile(path, directory), "utf8")));
  return Object.assign({}, ...texts.map((text) => readPairs(parseEnvFile(text), env))) as Record<string, string>;
}

/** Keys as they are, or lines of a file here. */
async function readKeys(keys: readonly string[], { directory }: Context): Promise<readonly string[]> {
  const read = keys.map(async (key) => {
    if (/^(ssh|ecdsa|sk)-\S+ /.test(key)) return [key];
    const text = await readFile(inputFile(key, directory), "utf8");
    return text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
  });
  return (await Promise.all(read)).flat();
}

/** `./data:/data` names a folder here: the daemon must be told where that is. */
function absoluteMount(mount: string, directory: string): string {
  const colon = mount.indexOf(":");
  const source = mount.slice(0, Math.max(0, colon));
  return /^\.{1,2}(\/|$)/.test(source) ? `${resolve(directory, source)}${mount.slice(colon)}` : mount;
}
