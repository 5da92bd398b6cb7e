import type { InstanceKind } from "../model.ts";
import type { Sections } from "./document.ts";
import type { MachineInput } from "./guest-shape.ts";
import type { InstanceInput } from "./shape.ts";

/** What sections of every kind may say. */
export type CommonInput = Pick<
  InstanceInput,
  "networks" | "publish" | "health" | "needs" | "replicas" | "update" | "hostname"
>;

/** One instance section as it is written. */
export interface Written<Input = CommonInput> {
  readonly kind: InstanceKind;
  readonly name: string;
  /** `["microvm", "web"]`: where problems of it are told. */
  readonly path: readonly [InstanceKind, string];
  readonly input: Input;
}

export function instancesOf(sections: Sections): readonly Written[] {
  return [...programsOf(sections), ...machinesOf(sections)];
}

/** Those that run a program of an image. */
export function programsOf(sections: Sections): readonly Written<InstanceInput>[] {
  return [...written("container", sections.container), ...written("microvm", sections.microvm)];
}

export function machinesOf(sections: Sections): readonly Written<MachineInput>[] {
  return written("vm", sections.vm);
}

function written<Input>(kind: InstanceKind, inputs: ReadonlyMap<string, Input>): Written<Input>[] {
  return [...inputs].map(([name, input]) => ({ kind, name, path: [kind, name], input }));
}
