import type { Instance } from "../../client/message.ts";
import { argument } from "../command.ts";
import type { Context } from "../context.ts";
import { forEach } from "./each.ts";
import { shownName } from "./view.ts";

/** What a verb is done to: one or more of these, each of which may mean several. */
export function instancesArgument(): ReturnType<typeof argument.some> {
  return argument.some("INSTANCE", "An instance, a section (web, shop/web) or a stack (shop/)", { offers: "instance" });
}

/** Does the same to every instance that the names mean; see `forEach`. */
export async function forEachMeant(
  names: readonly string[],
  action: (instance: string) => Promise<unknown>,
  context: Context,
): Promise<number> {
  return await forEach(await selectInstances(names, context), action, context);
}

/** The instances that the names mean. What means none, or something in several stacks, is left to the daemon to refuse. */
export async function selectInstances(names: readonly string[], { client }: Context): Promise<readonly string[]> {
  const { instances } = await client.instances.list({ all: true });
  const selected = names.flatMap((name) => {
    const meant = meantBy(name, instances);
    const isOneStack = new Set(meant.map(({ stack }) => stack)).size === 1;
    return isOneStack && meant.length > 1 ? meant.map(shownName) : [name];
  });
  return [...new Set(selected)];
}

/** As the daemon reads names: what is called so, otherwise the replicas of a section, or all of a stack. */
export function meantBy(name: string, instances: readonly Instance[]): readonly Instance[] {
  const slash = name.indexOf("/");
  const within = slash < 0 ? instances : instances.filter(({ stack }) => stack === name.slice(0, slash));
  const rest = name.slice(slash + 1);
  if (rest === "") return slash < 0 ? [] : within;
  const exact = within.filter(({ id, name }) => name === rest || id === rest);
  return exact.length > 0 ? exact : within.filter(({ id }) => id.split(".")[1] === rest);
}
