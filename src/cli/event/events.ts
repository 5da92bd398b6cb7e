import { isFault } from "../../base/fault.ts";
import type { Event } from "../../client/message.ts";
import { command as define, flag } from "../command.ts";
import { printJsonLine, say, type Context } from "../context.ts";
import { readCount } from "../value.ts";
import { harmless, padEnd } from "../width.ts";

/** How long a daemon that went away is waited for before giving up. */
const absenceMs = 30_000;
const retryMs = 500;

export const command = define({
  detail:
    "Goes on until Ctrl-C, also over a restart of the daemon: nothing is missed and nothing said twice. " +
    "The first column is an event's sequence; give the last one seen to --after to miss nothing.",
  examples: [
    ["croft events --after 0 --no-follow", "everything that is still recorded"],
    ["croft events -k instance. -k generation.failed", "only some kinds"],
  ],
  flags: {
    kind: flag.list("PREFIX", "Only kinds that begin so: instance., generation.failed", { short: "k" }),
    after: flag.parsed("SEQUENCE", "Begin after this one; from now on by default", readCount),
    noFollow: flag.toggle("End after what is recorded instead of waiting for more"),
  },
  async run({ flags }, context) {
    const { client, clock } = context;
    const beganMs = clock.nowMs();
    let after = flags.after;
    // Whoever has not seen an event yet goes on from the moment of asking: what was recorded before is read and left out.
    let skipsOld = false;
    // Whoever says where to go on from waits for the daemon; otherwise one that is not there now did not go away later.
    if (after === undefined) await client.host.get();
    let absentSinceMs: number | undefined;
    for (;;) {
      const request = { kinds: flags.kind, noFollow: flags.noFollow, ...(after !== undefined && { after }) };
      try {
        for await (const event of client.events.watch(request)) {
          absentSinceMs = undefined;
          after = event.sequence;
          skipsOld &&= Date.parse(event.time ?? "") < beganMs;
          if (!skipsOld) await print(event, context);
        }
        if (flags.noFollow) return;
      } catch (error) {
        if (flags.noFollow || !isFault(error, "unavailable")) throw error;
        skipsOld ||= after === undefined;
        after ??= 0;
        const nowMs = clock.monotonicMs();
        if (absentSinceMs === undefined) await say(context, "the daemon went away; waiting for it");
        absentSinceMs ??= nowMs;
        if (nowMs - absentSinceMs > absenceMs) throw error;
      }
      await clock.sleep(retryMs);
    }
  },
});

async function print(event: Event, context: Context): Promise<void> {
  if (context.json) return await printJsonLine(context, event);
  const { paint } = context.out;
  const { sequence, time = "", kind, subject, message } = event;
  const said = message.startsWith(subject) ? message : `${subject}: ${message}`;
  const bad = /failed|unhealthy|killed|exited/.test(kind);
  await context.out.write(
    `${paint(`${String(sequence).padStart(4)}  ${time}`, "dim")}  ${paint(padEnd(kind, 20), bad ? "bad" : "accent")}  ${harmless(said)}\n`,
  );
}
