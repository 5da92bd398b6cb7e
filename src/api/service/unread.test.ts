import assert from "node:assert/strict";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { systemClock } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Session } from "../../instance/contract.ts";
import { InstanceService } from "../../gen/croft/v1/instance_pb.ts";
import { openApi } from "../door.fixture.ts";
import type { Needs } from "../need.ts";
import { exampleNeeds } from "../needs.fixture.ts";
import { speakClient, speakGrpc, speakRest } from "../speak.fixture.ts";

/** A program as `head -1`, which says the first that it hears and ends with 3 a little later. It hears of nothing more. */
function headSession(): Session {
  const first = Promise.withResolvers<Uint8Array>();
  const exited = Promise.withResolvers<number>();
  let isDeaf = false;
  return {
    output: (async function* () {
      yield { stream: "stdout" as const, bytes: await first.promise };
      await exited.promise;
    })(),
    async write(bytes) {
      if (isDeaf) throw new Fault("failed", "write to exec: EPIPE");
      isDeaf = true;
      first.resolve(bytes);
      systemClock.after(20, () => exited.resolve(3));
    },
    endInput: () => {},
    async resize() {
      throw new Fault("precondition", "resize the terminal of it: it is not running");
    },
    async signal() {
      throw new Fault("precondition", "send a signal to it: it is not running");
    },
    exited: exited.promise,
    close: async () => exited.resolve(137),
  };
}

function needsOf(session: () => Session): Needs {
  const needs = exampleNeeds();
  const { instances } = needs.cloud;
  const run: typeof instances.run = async () => ({ instance: instances.list()[0] as never, session: session() });
  const open = async (): Promise<Session> => session();
  return { ...needs, cloud: { ...needs.cloud, instances: { ...instances, run, exec: open, attach: open } } };
}

const line = { input: { data: Buffer.from("one line\n").toString("base64") } };
const more = { input: { data: Buffer.alloc(2 ** 16, "y\n").toString("base64") } };
const terminal = { columns: 80, rows: 24 };
const starts = {
  RunInstance: { image: "app", interactive: true, terminal },
  ExecInstance: { instance: "web-1", command: ["head", "-1"], interactive: true },
  AttachInstance: { instance: "web-1", terminal },
};

describe("a program that ends before it has read its input is told by its own exit code", () => {
  for (const [name, start] of Object.entries(starts)) {
    for (const speak of [speakRest, speakGrpc, speakClient]) {
      test(`${name}, ${speak.name}`, async () => {
        await using api = await openApi({ needs: needsOf(headSession) });
        const method = InstanceService.methods.find((known) => known.name === name);
        assert(method !== undefined);
        const resize = { input: { resize: terminal } };
        const said = [
          { start },
          line,
          resize,
          { input: { signal: "SIGINT" } },
          ...Array.from({ length: 200 }, () => more),
        ];
        const { answers, fault } = await speak(api.unix, method, said);
        assert.equal(fault, undefined);
        const last = answers.slice(-2) as { output?: { stdout: string }; exit?: number }[];
        assert.deepEqual([last[0]?.output?.stdout, last[1]?.exit], [line.input.data, 3]);
      });
    }
  }
});

function chunk(message: object): string {
  const text = `${JSON.stringify(message)}\n`;
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

test("who is still sending when the answer ends is not hung up on, also who asked for one exchange only", async () => {
  await using api = await openApi({ needs: needsOf(headSession) });
  const socket = connect(api.socketPath);
  const head =
    "POST /v1/instances:exec HTTP/1.1\r\nhost: croft\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
  socket.write(head + chunk({ start: starts.ExecInstance }) + chunk(line));
  let answer = "";
  for await (const bytes of socket.iterator({ destroyOnReturn: false })) {
    answer += String(bytes);
    if (answer.endsWith("\r\n0\r\n\r\n")) break;
  }
  assert.match(answer, /"exit":3/);
  for (let count = 0; count < 20; count += 1) {
    await systemClock.sleep(5);
    await new Promise<void>((resolve, reject) =>
      socket.write(chunk(more), (error) => (error ? reject(error) : resolve())),
    );
  }
  socket.destroy();
});
