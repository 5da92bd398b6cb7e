import { argument, command as define } from "../command.ts";
import { printJson, say } from "../context.ts";
import { checkSource, readStackFile } from "../stack-source.ts";

export const command = define({
  detail: "Says everything that is wrong at once, with line and column. Reads nothing but the file.",
  args: { file: argument.optional("FILE", "A stack file or its folder, ./croft.toml by default", { offers: "file" }) },
  async run({ args }, context) {
    const source = await readStackFile(args.file, context);
    if (context.json) {
      const check = await context.client.stacks.check({ source });
      await printJson(context, check);
      return check.problems.some(({ severity }) => severity === "error") ? 2 : 0;
    }
    const { check } = await checkSource(source, context);
    await say(context, `${source.path}: stack ${check.stack} is fine`);
    return 0;
  },
});
