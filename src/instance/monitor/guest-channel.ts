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

const { signals } = constants;

/**
 * The program's exit code, in a shell's way for one that a signal ended: 128 + n. As if killed when nobody says, because the
 * guest went away under it, or says a signal that there is not, which a guest is free to do.
 */
export function exitOf(channel: ClientChannel): Promise<number> {
  return new Promise((resolve) => {
    // ssh2 tells signals by our names, with their SIG.
    const tell = (code?: number | null, signal?: string): void => {
      resolve(code ?? 128 + (signals[signal as NodeJS.Signals] ?? signals.SIGKILL));
    };
    channel.on("exit", tell);
    // Says the same once more: of a program that ended at once, the first word may have come before anybody listened.
    channel.on("close", tell);
  });
}
