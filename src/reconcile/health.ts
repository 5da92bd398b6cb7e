import { get } from "node:http";
import { connect } from "node:net";
import { withDeadline, type Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { InstanceId } from "../base/id.ts";
import type { Engine } from "../instance/contract.ts";
import type { HealthSection } from "../stack/model.ts";

export type Health = "none" | "starting" | "healthy" | "unhealthy";

/** What a probe needs to know about the instance it probes. */
export interface HealthTarget {
  readonly id: InstanceId;
  readonly address: string | undefined;
  readonly startedMs: number;
  readonly section: HealthSection;
}

interface Watch {
  readonly target: HealthTarget;
  health: Health;
  /** Why the last check failed; empty after one that succeeded. */
  message: string;
  failures: number;
  /** Wakes the prober before its interval is over. */
  readonly stop: AbortController;
}

/**
 * Probes the instances that have a health check, each at its own interval, one probe at a time. Keeps only what it last
 * saw: after a restart of the daemon everything is `starting` until the first probe, which comes at once.
 */
export class HealthMonitor {
  readonly #engineOf: (id: InstanceId) => Engine;
  readonly #call: Call;
  readonly #changed: (id: InstanceId, health: Health, message: string) => void;
  readonly #watches = new Map<InstanceId, Watch>();

  constructor(
    engineOf: (id: InstanceId) => Engine,
    changed: (id: InstanceId, health: Health, message: string) => void,
    call: Call,
  ) {
    this.#engineOf = engineOf;
    this.#changed = changed;
    this.#call = call;
  }

  /** What is known of an instance that has a check; `starting` before the first answer. */
  health(id: InstanceId): { readonly health: Health; readonly message: string } {
    return this.#watches.get(id) ?? { health: "starting", message: "" };
  }

  /** Probes it from now on. The same target again changes nothing; a new run or another check starts over. */
  follow(target: HealthTarget): void {
    const known = this.#watches.get(target.id);
    if (known !== undefined && sameTarget(known.target, target)) return;
    known?.stop.abort();
    const watch: Watch = { target, health: "starting", message: "", failures: 0, stop: new AbortController() };
    this.#watches.set(target.id, watch);
    void this.#run(watch);
  }

  forget(id: InstanceId): void {
    this.#watches.get(id)?.stop.abort();
    this.#watches.delete(id);
  }

  async #run(watch: Watch): Promise<void> {
    const { target } = watch;
    const { section } = target;
    const signal = AbortSignal.any([watch.stop.signal, this.#call.signal]);
    const call: Call = { ...this.#call, clock: this.#call.clock, report: () => {}, signal };
    while (!signal.aborted) {
      const failure = await this.#probe(target, call);
      if (signal.aborted) return;
      this.#judge(watch, failure);
      // While it starts, look often: whoever waits for it should not wait a whole interval longer than needed.
      const waitMs =
        watch.health === "starting" ? Math.min(section.intervalMs, startingIntervalMs) : section.intervalMs;
      await call.clock.sleep(waitMs, signal).catch(() => {});
    }
  }

  #judge(watch: Watch, failure: string | undefined): void {
    const { section, startedMs } = watch.target;
    const before = watch.health;
    if (failure === undefined) {
      watch.failures = 0;
      watch.health = "healthy";
      watch.message = "";
    } else {
      watch.message = failure;
      watch.failures += 1;
      // Early probes come faster than the interval says; they must not use up the retries any faster.
      const graceMs =
        (section.startPeriodMs + section.retries * section.intervalMs) * this.#patienceOf(watch.target.id);
      const isSpared = before === "starting" && this.#call.clock.nowMs() - startedMs < graceMs;
      if (!isSpared && watch.failures >= section.retries) watch.health = "unhealthy";
    }
    if (watch.health !== before) this.#changed(watch.target.id, watch.health, watch.message);
  }

  /** Undefined when healthy, else why not, in a few words. */
  async #probe(target: HealthTarget, call: Call): Promise<string | undefined> {
    const { check } = target.section;
    const timeoutMs = target.section.timeoutMs * this.#patienceOf(target.id);
    try {
      using limited = withDeadline(call, timeoutMs, `health check of ${target.id}`);
      if (check.kind === "exec") return await this.#probeExec(target.id, check.argv, limited);
      if (target.address === undefined) return "it has no network address to probe";
      if (check.kind === "tcp") return await probeTcp(target.address, check.port, limited.signal);
      return await probeHttp(target.address, check.port, check.path, limited.signal);
    } catch (thrown) {
      const fault = Fault.from(thrown, "health check");
      return fault.reason === "timeout" ? `no answer within ${timeoutMs} ms` : fault.message;
    }
  }

  #patienceOf(id: InstanceId): number {
    return this.#engineOf(id).patience ?? 1;
  }

  async #probeExec(id: InstanceId, argv: readonly string[], call: Call): Promise<string | undefined> {
    const engine = this.#engineOf(id);
    if (engine.exec === undefined) return `engine ${engine.name} cannot run programs inside an instance`;
    const session = await engine.exec.exec(id, { argv, env: {}, stdin: false }, call);
    const onAbort = (): void => void session.close().catch(() => {});
    call.signal.addEventListener("abort", onAbort, { once: true });
    try {
      // It may have taken all the time to begin.
      if (call.signal.aborted) throw call.signal.reason;
      let said = "";
      let saidBytes = 0;
      for await (const { bytes } of session.output) {
        if (said.length < 500) said += Buffer.from(bytes).toString("utf8");
        saidBytes += bytes.length;
        if (saidBytes > maxSaidBytes) return `${argv[0]} writes without end`;
      }
      const code = await session.exited;
      if (call.signal.aborted) throw call.signal.reason;
      return code === 0
        ? undefined
        : `${argv[0]} exited with code ${code}${said === "" ? "" : `: ${said.trim().slice(0, 500)}`}`;
    } finally {
      call.signal.removeEventListener("abort", onAbort);
      await session.close();
    }
  }
}

/** A check that writes more than this is ended: reading on would cost everybody else. */
const maxSaidBytes = 2 ** 20;

/** Between probes of an instance that has not been healthy yet. */
const startingIntervalMs = 250;

function sameTarget(left: HealthTarget, right: HealthTarget): boolean {
  return (
    left.startedMs === right.startedMs &&
    left.address === right.address &&
    (left.section === right.section || JSON.stringify(left.section) === JSON.stringify(right.section))
  );
}

function probeTcp(address: string, port: number, signal: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port });
    const onAbort = (): void => {
      socket.destroy();
      reject(signal.reason as Error);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    const settle = (failure: string | undefined): void => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      resolve(failure);
    };
    socket.once("connect", () => settle(undefined));
    socket.once("error", (error) => settle(`port ${port}: ${error.message}`));
  });
}

/** Healthy is 200 to 399, as for docker's and kubernetes' HTTP probes; redirects are not followed. */
function probeHttp(address: string, port: number, path: string, signal: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const request = get(
      { host: address, port, path, agent: false, headers: { "user-agent": "croft-health" } },
      (response) => {
        const status = response.statusCode ?? 0;
        response.destroy();
        settle(status >= 200 && status < 400 ? undefined : `GET :${port}${path} answered ${status}`);
      },
    );
    const onAbort = (): void => {
      request.destroy();
      reject(signal.reason as Error);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    const settle = (failure: string | undefined): void => {
      signal.removeEventListener("abort", onAbort);
      resolve(failure);
    };
    request.once("error", (error) => settle(`GET :${port}${path}: ${error.message}`));
  });
}
