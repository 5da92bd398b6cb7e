import { spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { createNamespace, inNamespace, removeNamespace } from "../../host/netns.ts";
import { createTap, openTap } from "../../host/tap.ts";
import type { Attachment } from "../contract.ts";
import { command, type Place } from "./test-traffic.ts";

/**
 * Machines without a machine: a network namespace at the far end of taps, and a process that holds their descriptors and
 * passes frames on, as QEMU does. What the guest's system does with its network cards is done here by `ip`.
 */

export interface Plugged {
  readonly place: Place;
  /** What only a process that holds the taps has: it ends, and the taps have nobody at the far end. */
  unplug(): Promise<void>;
}

/** Configures each card as the attachment says: hardware address, address, and the way out. */
export function plugIn(attachment: Extract<Attachment, { kind: "tap" }>, path: Place): Plugged {
  createNamespace(path, () => {});
  command(path, "ip", "link", "set", "lo", "up");
  const pumps = attachment.taps.map((tap, index) => {
    const name = `eth${index}`;
    const near = openTap(tap.name);
    const far = inNamespace(path, () => {
      createTap(name, 0);
      return openTap(name);
    });
    // Frames up to the size that a card with segmentation offload may send, each with the header that both taps have.
    const pump = spawn("socat", ["-b", "70000", "FD:3", "FD:4"], { stdio: ["ignore", "ignore", "ignore", near, far] });
    closeSync(near);
    closeSync(far);
    command(path, "ip", "link", "set", name, "address", tap.mac, "up");
    command(path, "ip", "address", "add", `${tap.address}/${tap.prefixLength}`, "dev", name);
    return pump;
  });
  if (attachment.gateway !== undefined) command(path, "ip", "route", "add", "default", "via", attachment.gateway);
  return {
    place: path,
    async unplug() {
      await Promise.all(
        pumps.map(async (pump) => {
          if (pump.exitCode !== null || pump.signalCode !== null) return;
          const ended = new Promise((resolve) => pump.once("exit", resolve));
          pump.kill("SIGKILL");
          await ended;
        }),
      );
      removeNamespace(path);
    },
  };
}
