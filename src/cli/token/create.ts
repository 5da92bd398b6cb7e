import { Fault } from "../../base/fault.ts";
import { namePattern, sha256 } from "../../base/id.ts";
import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail:
    "Makes a token for use over TCP, and the lines that let the daemon know it. The daemon keeps only a digest: the " +
    "token itself is shown once, here, and stored nowhere.",
  args: { name: argument.one("NAME", "Who holds it; named as the author of what is done with it") },
  async run({ args: { name } }, context) {
    if (!namePattern.test(name)) {
      throw new Fault("invalid", `a token cannot be called "${name}"`, { hint: "use a-z, 0-9 and dashes" });
    }
    // 256 random bits: a plain digest of it cannot be guessed back.
    const token = `croft_${Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url")}`;
    const section = `[token.${name}]\ndigest = "${sha256(token)}"\n`;
    if (context.json) return await printJson(context, { name, token, section });
    const { out } = context;
    await out.write(
      [
        `${out.paint("Token, shown only now:", "bold")}\n\n  ${token}\n\n`,
        `${out.paint("Add to /etc/croft/croftd.toml, beside a [listen] with the address, and restart the daemon:", "bold")}\n\n${section.replaceAll(/^(?=.)/gm, "  ")}\n`,
        `${out.paint("Then, from elsewhere:", "bold")}\n\n  export CROFT_HOST=https://HOST:7443 CROFT_TOKEN=${token}\n`,
      ].join(""),
    );
  },
});
