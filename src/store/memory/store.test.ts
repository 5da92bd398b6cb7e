import { storeSuite } from "../suite.ts";
import { MemoryStore } from "./store.ts";

storeSuite("memory", (options) => {
  const store = new MemoryStore(options);
  return { store, [Symbol.asyncDispose]: () => store.close() };
});
