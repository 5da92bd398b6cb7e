/**
 * The one error type that crosses a module boundary.
 *
 * A `Fault` carries a stable `reason` from the table below, one message that says what was attempted on what, one hint
 * with the next action a person can take, and the original error as `cause`. Status codes are not known here: `api/`
 * maps a reason to gRPC and HTTP, `cli/` to an exit code.
 */

/** Every reason a `Fault` can have. A new reason needs a row in `api/status.ts`, which the compiler enforces. */
export type Reason =
  | "invalid" // the request or file is wrong, whatever the state of the system
  | "not-found" // the named thing does not exist; never used for "looking failed"
  | "already-exists"
  | "conflict" // someone else moved first: compare-and-set lost, name or port held
  | "precondition" // right request, wrong state: start a running instance, exec into a stopped one
  | "protected" // refused by `protect`
  | "unauthenticated"
  | "forbidden"
  | "unsupported" // this driver or release cannot do that
  | "unavailable" // daemon, registry, network not reachable: try again
  | "exhausted" // out of disk, memory, addresses, pids, or a limit of ours
  | "corrupt" // content does not match what it claims: digest, size, format
  | "hostile" // input tried to leave its bounds: path traversal, expansion bomb
  | "timeout"
  | "cancelled"
  | "unhealthy" // a generation or instance did not become healthy in time
  | "failed" // a program or kernel call failed; the cause says how
  | "bug"; // an invariant of ours does not hold

export interface FaultOptions {
  /** The next action a person can take, as a sentence without a final full stop being required. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** Machine-readable detail, e.g. `{ port: "8080", holder: "shop/web-1" }`. Never a secret. */
  readonly detail?: Readonly<Record<string, string>>;
}

export class Fault extends Error {
  override readonly name = "Fault";
  readonly reason: Reason;
  readonly hint: string | undefined;
  readonly detail: Readonly<Record<string, string>>;

  constructor(reason: Reason, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.hint = options.hint;
    this.detail = options.detail ?? {};
  }

  /** `thrown` as a Fault: itself when it is one, otherwise wrapped as `failed` (or `cancelled` for an abort). */
  static from(thrown: unknown, attempted: string): Fault {
    if (thrown instanceof Fault) return thrown;
    if (thrown instanceof Error && thrown.name === "AbortError") {
      return new Fault("cancelled", `${attempted}: cancelled`, { cause: thrown });
    }
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    return new Fault("failed", `${attempted}: ${text}`, { cause: thrown });
  }
}

/** True when `thrown` is a Fault with that reason. */
export function isFault(thrown: unknown, reason?: Reason): thrown is Fault {
  return thrown instanceof Fault && (reason === undefined || thrown.reason === reason);
}
