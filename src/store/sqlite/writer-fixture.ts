import { writeSync } from "node:fs";
import { backgroundCall, systemClock } from "../../base/call.ts";
import { SqliteEventBus } from "../../event/sqlite/event-bus.ts";
import { Database } from "./database.ts";
import { SqliteStore } from "./store.ts";

/**
 * A process for the durability tests to kill: `writer-fixture.ts <database> <first number> <burst> <bursts>`. In each
 * burst it puts `burst` keys and publishes as many events at once, and says `put <number>` or `event <sequence>` on
 * standard output for each that was acknowledged, `fault <reason>` for one that was refused.
 */
const [, , path = "", first = "0", burst = "1", bursts = "1"] = process.argv;
const call = backgroundCall();
const database = Database.open(path);
const store = new SqliteStore(database);
const bus = new SqliteEventBus(database, systemClock);

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

function refused(thrown: unknown): void {
  say(`fault ${thrown instanceof Error && "reason" in thrown ? String(thrown.reason) : String(thrown)}`);
}

let number = Number(first);
say("ready");
for (let round = 0; round < Number(bursts); round += 1) {
  const writes: Promise<void>[] = [];
  for (let index = 0; index < Number(burst); index += 1) {
    const mine = (number += 1);
    const text = `${mine} `.repeat(1 + (mine % 400));
    writes.push(
      store.put(`k/${mine}`, text, "absent", call).then(() => say(`put ${mine}`), refused),
      bus
        .publish({ kind: "key.put", subject: `k/${mine}`, message: text })
        .then((event) => say(`event ${event.sequence}`), refused),
    );
  }
  await Promise.all(writes);
}
database.close();
say("closed");
