import { argument, command as define } from "../command.ts";
import { say } from "../context.ts";
import { processExitCode } from "../instance/process.ts";
import { converse, detached } from "../session.ts";

export const command = define({
  detail:
    "Shows what the machine writes to its serial console from now on, and gives it what is typed. In a terminal Ctrl-P Ctrl-Q leaves it.",
  args: { machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }) },
  exitCodeOf: processExitCode,
  async run({ args }, context) {
    const tty = context.keyboard.isTTY === true && context.out.isTerminal;
    const duplex = context.client.machines.openConsole();
    await duplex.send({ start: { machine: args.machine } });
    const ended = await converse(duplex, { tty, input: true, detachable: true, signalsEndUs: true }, context);
    if (ended !== detached) return ended;
    await say(context, `\r\nit goes on: croft vm console ${args.machine}`);
    return 0;
  },
});
