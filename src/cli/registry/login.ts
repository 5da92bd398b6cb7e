import { Fault } from "../../base/fault.ts";
import { argument, command as define, flag } from "../command.ts";
import { readLine } from "../confirm.ts";
import { say } from "../context.ts";
import { readHidden } from "../hidden-input.ts";

export const defaultRegistry = "docker.io";

export const command = define({
  detail: "Tries the credentials at the registry; the daemon keeps them if they are right.",
  examples: [["croft login ghcr.io -u me --password-stdin < token", "without a terminal"]],
  flags: {
    username: flag.text("NAME", "Asked for in a terminal otherwise", { short: "u" }),
    passwordStdin: flag.toggle("Read the password, or token, from standard input"),
  },
  args: { registry: argument.optional("REGISTRY", `${defaultRegistry} by default`) },
  async run({ flags, args }, context) {
    const { keyboard, err, client } = context;
    const registry = args.registry ?? defaultRegistry;
    if (!flags.passwordStdin && keyboard.isTTY !== true) {
      throw new Fault("invalid", "there is no terminal to ask for the password", { hint: "use --password-stdin" });
    }
    let { username } = flags;
    if (username === undefined) {
      if (flags.passwordStdin) throw new Fault("invalid", "whose password is it?", { hint: "say -u NAME" });
      await err.write(`User at ${registry}: `);
      username = (await readLine(context)).trim();
    }
    const password = flags.passwordStdin
      ? Buffer.concat(await Array.fromAsync(keyboard as AsyncIterable<Buffer>))
          .toString("utf8")
          .replace(/\r?\n$/, "")
      : await readHidden(context, `Password of ${username}: `);
    await client.images.loginRegistry({ registry, username, password });
    await say(context, `logged in at ${registry} as ${username}`);
  },
});
