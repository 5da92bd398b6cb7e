import { existsSync } from "node:fs";
import { type Call } from "../../base/call.ts";
import type { Probe } from "../../base/driver.ts";
import { Fault } from "../../base/fault.ts";
import { runNft } from "../../host/nftables.ts";
import { run } from "../../host/process.ts";
import { noTable, wholeTable } from "./ruleset.ts";

/**
 * Whether this host has what bridges need: nftables with translation and route lookup, dnsmasq, the `ip` program, and
 * namespaces. Applies a whole table under another name and takes it away again.
 */
export async function probeBridge(table: string, call: Call): Promise<Probe> {
  try {
    const scratch = `${table}_probe`;
    try {
      runNft(wholeTable(scratch, example), "try a table of rules");
    } finally {
      runNft(noTable(scratch), "remove the table that was tried");
    }
    const { stdout } = await run(["dnsmasq", "--version"], {}, call);
    await run(["ip", "-Version"], {}, call);
    const version = /version (\S+)/.exec(stdout)?.[1] ?? "of unknown version";
    const dropping = droppingTables();
    const detail = `nftables, dnsmasq ${version}${existsSync("/dev/net/tun") ? ", taps" : ", no taps (/dev/net/tun is missing)"}`;
    if (dropping.length === 0) return { ok: true, detail };
    return {
      ok: true,
      detail: `${detail}; but ${dropping.join(" and ")} drops forwarded packets, which no table of ours can overrule: instances may not reach the world, nor other hosts published ports`,
    };
  } catch (error) {
    const fault = Fault.from(error, "probe bridges");
    return {
      ok: false,
      detail: fault.message,
      mend: fault.hint ?? "load the kernel's nf_tables, nft_chain_nat, nft_fib_inet and bridge modules",
    };
  }
}

const example = {
  networks: [{ bridge: "probe", subnet: "192.0.2.0/24", addresses: ["192.0.2.1"], internal: false }],
  ports: [
    {
      hostAddress: "192.0.2.1",
      hostPort: 9,
      protocol: "tcp" as const,
      targets: [
        { address: "192.0.2.2", port: 9 },
        { address: "192.0.2.3", port: 9 },
      ],
    },
  ],
  resolvers: [],
  uplinks: [],
  links: [{ link: "probe", mac: "02:00:00:00:00:01", address: "192.0.2.2" }],
};

/** Tables of others whose forward chain drops what it does not know, such as Docker's. */
function droppingTables(): string[] {
  const chains = runNft("list chains", "list the chains of all tables");
  const found: string[] = [];
  let table = "";
  for (const line of chains.split("\n")) {
    table = /^table (.*) \{/.exec(line)?.[1] ?? table;
    if (/hook forward .*policy drop/.test(line)) found.push(`table ${table}`);
  }
  return found;
}
