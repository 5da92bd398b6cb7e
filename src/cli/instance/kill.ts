import { command as define, flag } from "../command.ts";
import { forEachMeant, instancesArgument } from "./select.ts";

export const command = define({
  examples: [["croft kill -s HUP web-1", "have it read its configuration again"]],
  flags: { signal: flag.text("SIGNAL", "HUP, SIGHUP or 1; SIGKILL by default", { short: "s" }) },
  args: { instances: instancesArgument() },
  async run({ flags, args }, context) {
    const signal = flags.signal === undefined ? {} : { signal: signalName(flags.signal) };
    return await forEachMeant(
      args.instances,
      (instance) => context.client.instances.kill({ instance, ...signal }),
      context,
    );
  },
});

/** `hup` and `SIGHUP` are the same; numbers are left to the daemon. */
export function signalName(text: string): string {
  const name = text.toUpperCase();
  return /^[0-9]+$/.test(name) || name.startsWith("SIG") ? name : `SIG${name}`;
}
