import { flag, type Flag } from "./command.ts";

/** Flags that every command takes, before the verb or after it. A command's own flag of the same name goes first. */
export const globalFlags = {
  help: flag.toggle("Show how the command is used", { short: "h" }),
  json: flag.toggle("Print JSON as the API gives it; long work as one object a line"),
  quiet: flag.toggle("Print nothing but results and errors"),
  color: tristate("Use colours; --no-color and NO_COLOR turn them off"),
  root: flag.text("DIR", "Talk to the daemon that keeps everything beneath DIR (CROFT_ROOT)", { offers: "folder" }),
  host: flag.text("URL", "Talk to the daemon at unix:///path, http://host:port or https://host:port (CROFT_HOST)"),
} as const;

/** Undefined when nothing was said, so that the terminal decides. */
function tristate(brief: string): Flag<boolean | undefined> {
  return {
    ...flag.toggle(brief),
    read: (given) => (given.length === 0 ? undefined : given.at(-1) === "true"),
  };
}
