import * as fc from "fast-check";
import { sha256 } from "../../base/id.ts";
import { instanceDefaults, machineDefaults } from "../default.ts";
import type { Generation, InstanceKind, InstanceSection } from "../model.ts";
import type { Desired } from "./step.ts";

/** A generation of one stack with these sections; the digest of every image is that of its name. */
export function generationOf(
  instances: Record<string, Partial<InstanceSection>>,
  parts: Partial<Generation["spec"]> = {},
): Generation {
  const full = Object.fromEntries(
    Object.entries(instances).map(([name, section]) => [name, { ...instanceDefaults, image: "app:1", ...section }]),
  );
  return {
    spec: {
      stack: "shop",
      networks: { default: { internal: false } },
      volumes: {},
      secrets: {},
      images: {},
      instances: full,
      ...parts,
    },
    images: Object.fromEntries(Object.values(full).map(({ image }) => [image, sha256(image)])),
    diskImages: Object.fromEntries(Object.values(full).map(({ image }) => [image, sha256(`disk ${image}`)])),
    secrets: {},
    files: {},
  };
}

/** What should be there of a stack that should not be there: `croft down`. */
export const nothing: Desired = { stack: "shop", networks: [], volumes: [], instances: [] };

const names = ["a", "b", "c", "d"];
const networkNames = ["default", "back"];
const volumeNames = ["v", "w"];

/** Any generation: a few sections that need each other without circles, on two networks and two volumes. */
export const anyGeneration: fc.Arbitrary<Generation> = fc
  .tuple(
    fc.shuffledSubarray(names),
    fc.array(
      fc.record({
        kind: fc.constantFrom("container" as const, "container" as const, "microvm" as const, "vm" as const),
        tpm: fc.boolean(),
        data: fc.boolean(),
        image: fc.constantFrom("app:1", "app:2"),
        replicas: fc.integer({ min: 0, max: 3 }),
        order: fc.constantFrom("start-first" as const, "stop-first" as const),
        restart: fc.constantFrom("always" as const, "on-failure" as const, "never" as const),
        checked: fc.boolean(),
        networks: fc.subarray(networkNames),
        volume: fc.option(fc.constantFrom(...volumeNames), { nil: undefined }),
        memoryBytes: fc.constantFrom(2 ** 26, 2 ** 27),
        needed: fc.array(fc.nat(3), { maxLength: 2 }),
      }),
      { minLength: names.length, maxLength: names.length },
    ),
    fc.constantFrom(undefined, "10.1.0.0/24", "10.2.0.0/24"),
    fc.boolean(),
    fc.constantFrom(undefined, 2 ** 30),
  )
  .map(([order, recipes, subnet, internal, sizeBytes]) => {
    const instances: Record<string, Partial<InstanceSection>> = {};
    for (const [index, name] of order.entries()) {
      const recipe = recipes[index];
      if (recipe === undefined) continue;
      const needs = [...new Set(recipe.needed.filter((other) => other < index).map((other) => order[other] ?? name))];
      instances[name] = {
        ...ofKind(recipe),
        image: recipe.image,
        replicas: recipe.replicas,
        restart: recipe.restart,
        networks: recipe.networks,
        memoryBytes: recipe.memoryBytes,
        needs,
        mounts:
          recipe.volume === undefined || recipe.kind === "vm"
            ? []
            : [{ kind: "volume", volume: recipe.volume, destination: "/data", readOnly: false }],
        update: { order: recipe.order, healthyWithinMs: 1000 },
        ...(recipe.checked
          ? { health: { check: { kind: "tcp", port: 80 }, intervalMs: 1, timeoutMs: 1, retries: 1, startPeriodMs: 0 } }
          : {}),
      };
    }
    return generationOf(instances, {
      networks: { default: { internal: false }, back: { ...(subnet === undefined ? {} : { subnet }), internal } },
      volumes: Object.fromEntries(
        volumeNames.map((name) => [name, { ...(sizeBytes === undefined ? {} : { sizeBytes }), protect: false }]),
      ),
    });
  });

/** What a section of this kind has beside what all have. */
function ofKind(recipe: {
  readonly kind: InstanceKind;
  readonly tpm: boolean;
  readonly data: boolean;
  readonly image: string;
}): Partial<InstanceSection> {
  if (recipe.kind === "container") return {};
  if (recipe.kind === "microvm") return { kind: "microvm" };
  const data = { name: "data", from: { kind: "blank" }, sizeBytes: 2 ** 20 } as const;
  return {
    ...machineDefaults,
    tpm: recipe.tpm,
    cloudInit: { kind: "files" },
    sshKeys: [],
    passthrough: { pci: [], usb: [] },
    disks: [{ name: "root", from: { kind: "image", image: recipe.image } }, ...(recipe.data ? [data] : [])],
  };
}

/** What can befall an instance or a network between two plans. */
export const anyFault = fc.record({
  kind: fc.constantFrom(
    "ended-well" as const,
    "crashed" as const,
    "unhealthy" as const,
    "frozen" as const,
    "detached" as const,
    "broken" as const,
    "forgotten" as const,
    "rebooted" as const,
    "asked" as const,
    "saved" as const,
    "revert-asked" as const,
    "network-broken" as const,
    "network-gone" as const,
  ),
  which: fc.nat(),
});
export type AnyFault = typeof anyFault extends fc.Arbitrary<infer Value> ? Value : never;
