import { argument, command as define, flag } from "../command.ts";
import { converse } from "../session.ts";
import { readPairs } from "../value.ts";
import { processExitCode, sessionTerminal } from "./process.ts";

export const command = define({
  detail: "Flags come before INSTANCE; what follows it belongs to the program. The exit code is that of the program.",
  examples: [
    ["croft exec -it shop/web-1 sh", "a shell inside it"],
    ["croft exec db pg_dump shop > shop.sql", "output into a file here"],
    ["croft exec -i db psql < shop.sql", "a file from here as its input"],
  ],
  flags: {
    interactive: flag.toggle("Give it standard input", { short: "i" }),
    tty: flag.toggle("Give it a terminal", { short: "t" }),
    detach: flag.toggle("Let it run in the background", { short: "d" }),
    user: flag.text("USER", "Who runs it: name, uid or uid:gid", { short: "u" }),
    workdir: flag.text("PATH", "Where it starts", { short: "w" }),
    env: flag.list("NAME=VALUE", "An environment variable; NAME alone takes the one from here", { short: "e" }),
  },
  args: {
    instance: argument.one("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }),
    command: argument.program("The program and its arguments", 1),
  },
  exitCodeOf: processExitCode,
  async run({ flags, args }, context) {
    const { tty, detach, user, workdir } = flags;
    const interactive = flags.interactive && !detach;
    const terminal = tty ? sessionTerminal(context, interactive) : undefined;
    const duplex = context.client.instances.exec();
    await duplex.send({
      start: {
        instance: args.instance,
        command: args.command,
        env: readPairs(flags.env, context.env),
        interactive,
        detach,
        ...(user !== undefined && { user }),
        ...(workdir !== undefined && { workdir }),
        ...(terminal !== undefined && { terminal }),
      },
    });
    const ended = await converse(duplex, { tty: tty && !detach, input: interactive, detachable: false }, context);
    return typeof ended === "number" ? ended : 0;
  },
});
