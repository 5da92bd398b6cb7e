import { Fault } from "../../base/fault.ts";
import { argument, command as define, flag } from "../command.ts";
import { printJson, say } from "../context.ts";
import { readHidden } from "../hidden-input.ts";
import { readCount } from "../value.ts";
import { secretNamed } from "./name.ts";

export const command = define({
  detail:
    "Reads the value from standard input, whole: a final line end belongs to it off a terminal. In a terminal it is " +
    "asked for and not shown. Instances take it with the next croft up.",
  examples: [
    ['printf %s "$PASSWORD" | croft secret set shop/db-password', "from a variable"],
    ["croft secret set shop/tls-key < tls.key", "from a file"],
    ["croft secret set shop/db-password --generate 32", "random letters and digits"],
  ],
  flags: { generate: flag.parsed("LENGTH", "A random value of so many letters and digits instead", readCount) },
  args: { secret: argument.one("SECRET", "STACK/NAME, or NAME for the stack of ./croft.toml") },
  async run({ flags, args }, context) {
    const { client, keyboard } = context;
    const named = await secretNamed(args.secret, context);
    if (flags.generate !== undefined) {
      const secret = await client.secrets.rotate({ ...named, length: flags.generate });
      return context.json ? await printJson(context, secret) : await say(context, `${args.secret} has a new value`);
    }
    const bytes =
      keyboard.isTTY === true
        ? Buffer.from(await readHidden(context, `Value of ${args.secret}: `))
        : Buffer.concat(await Array.fromAsync(keyboard as AsyncIterable<Buffer>));
    if (bytes.length === 0) throw new Fault("invalid", "the value is empty", { hint: "nothing was changed" });
    const secret = await client.secrets.set({ ...named, value: bytes.toString("base64") });
    if (context.json) await printJson(context, secret);
    else await say(context, `${args.secret} has a new value`);
  },
});
