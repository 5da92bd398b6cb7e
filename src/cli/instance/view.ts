import { formatDuration } from "../../base/unit.ts";
import type { Instance, PublishedPort } from "../../client/message.ts";
import type { Tint } from "../paint.ts";
import type { Cell, Column } from "../table.ts";

/** The columns of `ps`, at a moment. */
export function instanceColumns(nowMs: number): readonly Column<Instance>[] {
  return [
    { title: "INSTANCE", cell: shownName, yields: 2 },
    { title: "IMAGE", cell: ({ image }) => image, yields: 4 },
    { title: "STATUS", cell: (instance) => statusCell(instance, nowMs) },
    { title: "HEALTH", cell: healthCell, optional: true },
    { title: "ADDRESS", cell: ({ addresses }) => addresses.map(({ address }) => address).join(" "), yields: 3 },
    { title: "PORTS", cell: ({ ports }) => ports.map(shownPort).join(" "), yields: 1, optional: true },
    { title: "NOTE", cell: noteCell, yields: 5, optional: true },
  ];
}

/** `shop/web-1`; `late` for what `croft run --name late` made, whose stack is called the same. */
export function shownName({ stack, name }: Pick<Instance, "stack" | "name">): string {
  return stack === name ? name : `${stack}/${name}`;
}

/** `running 5 m`, `exited (1) 3 h ago`. */
export function statusCell(instance: Instance, nowMs: number): Cell {
  const { status, started, finished, exitCode, oomKilled } = instance;
  const age = (time: string | undefined): string =>
    time === undefined ? "" : formatDuration(nowMs - Date.parse(time));
  if (status === "running") return { text: `running ${age(started)}`.trimEnd(), tint: "good" };
  if (status === "exited") {
    const code = oomKilled ? "out of memory" : `${exitCode ?? "?"}`;
    const since = finished === undefined ? "" : ` ${age(finished)} ago`;
    return { text: `exited (${code})${since}`, ...(exitCode !== 0 && { tint: "bad" as const }) };
  }
  return { text: status, tint: status === "restarting" ? "bad" : "warn" };
}

const healthTints: Readonly<Record<string, Tint>> = { healthy: "good", unhealthy: "bad", starting: "warn" };

export function healthCell({ health }: Instance): Cell {
  const tint = healthTints[health];
  return { text: health === "none" ? "" : health, ...(tint !== undefined && { tint }) };
}

/** `8080→80`, with the address when it is not every one, and the protocol when it is not tcp. */
export function shownPort({ hostAddress, hostPort, port, protocol }: PublishedPort): string {
  const everywhere = hostAddress === "" || hostAddress === "0.0.0.0" || hostAddress === "::";
  const address = everywhere ? "" : `${hostAddress.includes(":") ? `[${hostAddress}]` : hostAddress}:`;
  return `${address}${hostPort}→${port}${protocol === "tcp" || protocol === "" ? "" : `/${protocol}`}`;
}

function noteCell({ message, restarts }: Instance): Cell {
  const times = restarts === 0 ? [] : [restarts === 1 ? "restarted once" : `restarted ${restarts} times`];
  const [first = ""] = message.split("\n");
  return { text: [...times, ...(first === "" ? [] : [first])].join("; "), tint: "dim" };
}
