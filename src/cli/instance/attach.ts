import { argument, command as define, flag } from "../command.ts";
import { say } from "../context.ts";
import { converse, detached, terminalSize } from "../session.ts";
import { processExitCode } from "./process.ts";

export const command = define({
  detail:
    "Shows what the process writes from now on, and gives it what is typed, signals such as Ctrl-C included. In a " +
    "terminal Ctrl-P Ctrl-Q leaves it running; with --no-stdin, which only watches, so does Ctrl-C.",
  flags: { noStdin: flag.toggle("Only watch: give it neither standard input nor signals") },
  args: { instance: argument.one("INSTANCE", "web-1, shop/web-1 or an id", { offers: "instance" }) },
  exitCodeOf: processExitCode,
  async run({ flags, args }, context) {
    const input = !flags.noStdin;
    const tty = input && context.keyboard.isTTY === true && context.out.isTerminal;
    const terminal = tty ? terminalSize(context) : undefined;
    const duplex = context.client.instances.attach();
    await duplex.send({
      start: { instance: args.instance, noStdin: !input, ...(terminal !== undefined && { terminal }) },
    });
    const ended = await converse(duplex, { tty, input, detachable: true, signalsEndUs: !input }, context);
    if (ended !== detached) return ended;
    await say(context, `\r\nit goes on: croft attach ${args.instance}`);
    return 0;
  },
});
