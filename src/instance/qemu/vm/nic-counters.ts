import { readFileSync } from "node:fs";
import type { MachineLaunch } from "../../contract.ts";

/** What the guest received and sent: what the host sent to and received from its taps. */
export function nicCounters(launch: MachineLaunch): { readonly receivedBytes: number; readonly sentBytes: number } {
  const names = launch.attachment.kind === "tap" ? launch.attachment.taps.map(({ name }) => name) : [];
  let receivedBytes = 0;
  let sentBytes = 0;
  for (const line of readFileSync("/proc/self/net/dev", "utf8").split("\n")) {
    const [name = "", numbers = ""] = line.split(":");
    if (!names.includes(name.trim())) continue;
    const fields = numbers.trim().split(/\s+/).map(Number);
    sentBytes += fields[0] ?? 0;
    receivedBytes += fields[8] ?? 0;
  }
  return { receivedBytes, sentBytes };
}
