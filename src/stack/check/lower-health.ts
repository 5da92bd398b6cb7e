import { healthDefaults } from "../default.ts";
import type { HealthSection } from "../model.ts";
import type { InstanceInput } from "./shape.ts";

export function lowerHealth(health: NonNullable<InstanceInput["health"]>): HealthSection {
  return {
    check:
      health.http === undefined
        ? health.tcp === undefined
          ? { kind: "exec", argv: health.exec ?? [] }
          : { kind: "tcp", port: health.tcp }
        : { kind: "http", ...health.http },
    intervalMs: health.interval ?? healthDefaults.intervalMs,
    timeoutMs: health.timeout ?? healthDefaults.timeoutMs,
    retries: health.retries ?? healthDefaults.retries,
    startPeriodMs: health["start-period"] ?? healthDefaults.startPeriodMs,
  };
}
