import { constants } from "node:os";
import type { ClientChannel } from "ssh2";

/** A program in a guest, as its dropbear gives it to us: what ssh2 does with it otherwise. */

/**
 * Has the guest close the channel, and not ssh2. Its stream closes itself as soon as both its ends are done, which is before
 * the guest has closed it: dropbear then takes the next channel for this one, and closes that. ssh2 answers when the guest
 * closes it.
 */
export function leaveToGuest(channel: ClientChannel): void {
  channel.destroy = () => channel;
}

const killed = 128 + constants.signals.SIGKILL;

/** The program's exit code, in a shell's way for one that a signal ended; SIGKILL's when nobody says. */
export function exitOf(channel: ClientChannel): Promise<number> {
  return new Promise((resolve) => {
    channel.on("exit", (code: number | null, signal?: string) => {
      const number = constants.signals[`SIG${signal ?? "KILL"}` as NodeJS.Signals] ?? constants.signals.SIGKILL;
      resolve(code ?? 128 + number);
    });
    channel.on("close", () => resolve(killed));
  });
}
