import { type Call, throwIfCancelled, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { InstanceId } from "../../../base/id.ts";
import type { GuestFacts } from "../../contract.ts";
import { type Agent, requireAgent } from "./agent.ts";

/** For all questions together, when an agent is there. */
const answerTimeoutMs = 10_000;
/** What a guest may say of one thing; it is shown to people. */
const maxTextLength = 200;
const maxAddresses = 256;

/** See `GuestFacet`. Whatever the guest says is taken for text, and no more of it than somebody reads. */
export async function askGuest(id: InstanceId, agentSocket: string, call: Call): Promise<GuestFacts> {
  const attempted = `ask the guest of ${id}`;
  using bounded = withDeadline(call, answerTimeoutMs, attempted);
  return await requireAgent(agentSocket, attempted, bounded, async (agent) => {
    const answers: unknown[] = [];
    for (const command of ["guest-get-host-name", "guest-get-osinfo", "guest-network-get-interfaces"]) {
      answers.push(await ask(agent, command, bounded));
    }
    const [name, system, interfaces] = answers;
    return {
      hostname: textIn(name, "host-name"),
      system: textIn(system, "pretty-name"),
      kernel: textIn(system, "kernel-release"),
      addresses: addressesIn(interfaces),
    };
  });
}

/** An agent that does not know a question has no answer to it. */
async function ask(agent: Agent, command: string, call: Call): Promise<unknown> {
  try {
    return await agent.execute(command, {}, call);
  } catch (error) {
    throwIfCancelled(call);
    const { reason } = Fault.from(error, command);
    if (reason === "unsupported" || reason === "failed") return undefined;
    throw error;
  }
}

function textIn(value: unknown, member: string): string {
  if (typeof value !== "object" || value === null) return "";
  const text = (value as Readonly<Record<string, unknown>>)[member];
  // oxlint-disable-next-line no-control-regex -- what a terminal would take for commands is left out
  return typeof text === "string" ? text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, "").slice(0, maxTextLength) : "";
}

function addressesIn(interfaces: unknown): GuestFacts["addresses"] {
  if (!Array.isArray(interfaces)) return [];
  const found: { interface: string; mac: string; address: string }[] = [];
  for (const one of interfaces as readonly unknown[]) {
    const name = textIn(one, "name");
    const addresses = (one as { readonly "ip-addresses"?: unknown } | null)?.["ip-addresses"];
    if (name === "lo" || !Array.isArray(addresses)) continue;
    for (const address of addresses as readonly unknown[]) {
      const prefix = (address as { readonly prefix?: unknown } | null)?.prefix;
      const text = textIn(address, "ip-address");
      if (text === "" || typeof prefix !== "number") continue;
      found.push({ interface: name, mac: textIn(one, "hardware-address"), address: `${text}/${prefix}` });
    }
  }
  return found.slice(0, maxAddresses);
}
