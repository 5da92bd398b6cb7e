import type { Reason } from "../base/fault.ts";

/** How a reason is told in the two protocols. Nothing outside `api/` knows these numbers. */
export interface Status {
  /** A gRPC status code. */
  readonly grpc: number;
  readonly http: number;
}

/**
 * The one table. A client should look at the reason; the codes are for tools between it and us, which retry on
 * UNAVAILABLE and give up on the rest.
 */
export const statuses: Readonly<Record<Reason, Status>> = {
  invalid: { grpc: 3, http: 400 }, // INVALID_ARGUMENT
  "not-found": { grpc: 5, http: 404 }, // NOT_FOUND
  "already-exists": { grpc: 6, http: 409 }, // ALREADY_EXISTS
  conflict: { grpc: 10, http: 409 }, // ABORTED
  precondition: { grpc: 9, http: 409 }, // FAILED_PRECONDITION
  protected: { grpc: 9, http: 409 }, // FAILED_PRECONDITION
  unauthenticated: { grpc: 16, http: 401 }, // UNAUTHENTICATED
  forbidden: { grpc: 7, http: 403 }, // PERMISSION_DENIED
  unsupported: { grpc: 12, http: 501 }, // UNIMPLEMENTED
  unavailable: { grpc: 14, http: 503 }, // UNAVAILABLE
  exhausted: { grpc: 8, http: 429 }, // RESOURCE_EXHAUSTED
  corrupt: { grpc: 15, http: 422 }, // DATA_LOSS
  hostile: { grpc: 3, http: 422 }, // INVALID_ARGUMENT
  timeout: { grpc: 4, http: 504 }, // DEADLINE_EXCEEDED
  cancelled: { grpc: 1, http: 499 }, // CANCELLED
  unhealthy: { grpc: 9, http: 409 }, // FAILED_PRECONDITION
  failed: { grpc: 2, http: 500 }, // UNKNOWN
  bug: { grpc: 13, http: 500 }, // INTERNAL
};
