import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock, type Clock } from "../base/call.ts";
import { listen, type TcpListening } from "./listen.ts";
import { exampleNeeds } from "./needs.fixture.ts";
import type { Needs } from "./need.ts";
import { services } from "./service/all.ts";
import type { Place } from "./speak.fixture.ts";

/** An API of its own, on a socket in a folder of its own. */
export interface TestApi extends AsyncDisposable {
  readonly socketPath: string;
  readonly unix: Place;
  readonly port: number;
  close(graceMs: number): Promise<void>;
}

export async function openApi(
  options: {
    readonly needs?: Needs;
    readonly tcp?: TcpListening;
    readonly maxCalls?: number;
    readonly clock?: Clock;
  } = {},
): Promise<TestApi> {
  const folder = mkdtempSync(join(tmpdir(), "croft-door-"));
  const socketPath = join(folder, "croft.sock");
  const { needs = exampleNeeds(), tcp, maxCalls = 100, clock = systemClock } = options;
  const listening = tcp === undefined ? { socketPath } : { socketPath, tcp };
  const log = { error: (): void => {} };
  const api = await listen(services(needs), listening, { clock, log, maxCalls });
  return {
    socketPath,
    unix: { kind: "unix", socketPath },
    port: api.tcpPort ?? 0,
    close: (graceMs) => api.close(graceMs),
    async [Symbol.asyncDispose]() {
      await api.close(0);
      rmSync(folder, { recursive: true });
    },
  };
}
