import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { storeSuite } from "../suite.ts";
import { Database } from "./database.ts";
import { SqliteStore } from "./store.ts";

storeSuite("sqlite", (options) => {
  const directory = mkdtempSync(join(tmpdir(), "croft-store-"));
  const database = Database.open(join(directory, "croft.db"));
  const store = new SqliteStore(database, options);
  return {
    store,
    async [Symbol.asyncDispose]() {
      await store.close();
      database.close();
      rmSync(directory, { recursive: true });
    },
  };
});
