import { isFault } from "../base/fault.ts";
import { command as define, flag } from "./command.ts";
import { printJson } from "./context.ts";

export const command = define({
  flags: { client: flag.toggle("Do not ask the daemon for its version") },
  async run({ flags }, context) {
    const { version } = context;
    const host = flags.client
      ? undefined
      : await context.client.host.get().catch((error: unknown) => {
          if (isFault(error)) return undefined;
          throw error;
        });
    if (context.json) return await printJson(context, { client: version, ...(host && { daemon: host.version }) });
    await context.out.write(
      `croft ${version}\n${host === undefined ? "" : `daemon ${host.version} on ${host.name}\n`}`,
    );
  },
});
