import type { HealthSection, InstanceSection } from "./model.ts";

/** What a section is when it says nothing but its image. `croft run` starts from the same. */
export const instanceDefaults: Omit<InstanceSection, "image"> = {
  kind: "container",
  env: {},
  terminal: false,
  stdin: false,
  mounts: [],
  networks: ["default"],
  publish: [],
  // Far more than any well-behaved service needs, far less than a fork bomb wants of the host.
  pids: 4096,
  restart: "always",
  needs: [],
  replicas: 1,
  stopGraceMs: 10_000,
  readOnly: false,
  capabilities: { add: [], drop: [] },
  labels: {},
  protect: false,
  log: { maxBytes: 16 * 2 ** 20 },
  update: { order: "stop-first", healthyWithinMs: 60_000 },
};

export const healthDefaults: Omit<HealthSection, "check"> = {
  intervalMs: 5000,
  timeoutMs: 3000,
  retries: 3,
  startPeriodMs: 0,
};

const { pids: _, ...withoutPids } = instanceDefaults;

/** What a full machine is when it says nothing but its disk. One that shuts itself down has ended well. */
export const machineDefaults = {
  ...withoutPids,
  kind: "vm",
  firmware: "bios",
  tpm: false,
  hugepages: false,
  balloon: true,
  cpus: 1,
  memoryBytes: 2 ** 30,
  restart: "on-failure",
  stopGraceMs: 60_000,
  update: { order: "stop-first", healthyWithinMs: 300_000 },
} as const satisfies Partial<InstanceSection>;
