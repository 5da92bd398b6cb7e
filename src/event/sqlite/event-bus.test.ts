import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Database } from "../../store/sqlite/database.ts";
import { eventSuite } from "../suite.ts";
import { SqliteEventBus } from "./event-bus.ts";

eventSuite("sqlite", (clock, retention) => {
  const directory = mkdtempSync(join(tmpdir(), "croft-event-"));
  const database = Database.open(join(directory, "croft.db"));
  const bus = new SqliteEventBus(database, clock, retention);
  return {
    bus,
    async [Symbol.asyncDispose]() {
      await bus.close();
      database.close();
      rmSync(directory, { recursive: true });
    },
  };
});
