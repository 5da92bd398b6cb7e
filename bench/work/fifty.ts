import { connect } from "node:net";
import { busybox, type Contender } from "../contender/contender.ts";
import { processes, programOf, pssKib, runAll, timeMs } from "../process.ts";
import { type Row, rowOf } from "../row.ts";
import { interleave, type Work } from "./ground.ts";

const ids = Array.from({ length: 50 }, (_, at) => `fifty-${at}`);
const listingMs = 2_000;

/** Fifty containers: starting them at once, what each of them costs, and asking for all of them. */
export const fifty: Work = {
  name: "fifty",
  measure: async ({ contenders, rounds }) => {
    const memory = new Map<Contender["name"], number>();
    const rates = await interleave(contenders, 1, async (contender) => {
      const before = processes();
      const startMs = performance.now();
      await runAll(ids.map((id) => contender.runDetached(id, [busybox, "sleep", "3600"])));
      const rate = (ids.length * 1000) / (performance.now() - startMs);
      memory.set(contender.name, perContainerKib(before));
      return rate;
    });
    const rows = [
      rowOf("50 × run -d at once", "containers/s", rates, [{ sense: "at least", factor: 1.3, of: "ctr" }]),
      // Nothing stays beside a container that a bare runtime made.
      rowOf("own memory per idle container", "KiB PSS", without(memory, "crun"), [{ sense: "at most", factor: 400 }]),
      await listedByCli(contenders, rounds),
      await listedByApi(contenders),
    ];
    for (const contender of contenders) contender.remove(ids);
    return rows;
  },
};

/** Of every process that came with the containers, except their own programs. */
function perContainerKib(before: ReadonlySet<number>): number {
  const monitors = [...processes()].filter((pid) => !before.has(pid) && programOf(pid) !== "busybox");
  return monitors.map(pssKib).reduce((sum, one) => sum + one, 0) / ids.length;
}

function without(figures: ReadonlyMap<Contender["name"], number>, name: Contender["name"]): typeof figures {
  return new Map([...figures].filter(([known]) => known !== name));
}

async function listedByCli(contenders: readonly Contender[], rounds: number): Promise<Row> {
  const able = contenders.filter((contender) => contender.ps !== undefined);
  const figures = await interleave(able, rounds, (contender) => timeMs(contender.ps?.() ?? { argv: [] }));
  return rowOf("ps with 50 running", "ms", figures, [{ sense: "at most", factor: 1, of: "docker" }]);
}

async function listedByApi(contenders: readonly Contender[]): Promise<Row> {
  const able = contenders.filter(({ api }) => api !== undefined);
  const figures = await interleave(able, 3, ({ api }) => (api === undefined ? Number.NaN : requestsPerSecond(api)));
  return rowOf("list of 50 over the API, one connection", "req/s", figures, [
    { sense: "at least", factor: 10, of: "docker" },
  ]);
}

/** Asks over and over on one connection, counting whole answers, whose length is said or which come in chunks. */
async function requestsPerSecond({ socketPath, path }: NonNullable<Contender["api"]>): Promise<number> {
  const socket = connect(socketPath);
  const request = `GET ${path} HTTP/1.1\r\nhost: bench\r\n\r\n`;
  let answer: Buffer = Buffer.alloc(0);
  let answers = 0;
  const startMs = performance.now();
  await new Promise<void>((resolve, reject) => {
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`${socketPath} hung up`)));
    socket.on("data", (chunk: Buffer) => {
      answer = answer.length === 0 ? chunk : Buffer.concat([answer, chunk]);
      if (!isWhole(answer)) return;
      if (answers === 0 && !answer.includes(ids[0] ?? "")) reject(new Error(`${path} does not list what runs`));
      answers += 1;
      answer = Buffer.alloc(0);
      if (performance.now() - startMs < listingMs) socket.write(request);
      else resolve();
    });
    socket.write(request);
  });
  const seconds = (performance.now() - startMs) / 1000;
  socket.destroy();
  return answers / seconds;
}

function isWhole(answer: Buffer): boolean {
  const end = answer.indexOf("\r\n\r\n");
  if (end === -1) return false;
  const head = answer.toString("latin1", 0, end);
  if (!head.startsWith("HTTP/1.1 200")) throw new Error(`the list was refused:\n${head}`);
  const length = /^content-length: (\d+)/im.exec(head)?.[1];
  if (length === undefined) return answer.subarray(-5).toString("latin1") === "0\r\n\r\n";
  return answer.length >= end + 4 + Number(length);
}
