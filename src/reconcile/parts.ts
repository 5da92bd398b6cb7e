import type { Digest, VolumeId, NetworkId } from "../base/id.ts";
import type { Call, Clock } from "../base/call.ts";
import type { EventBus } from "../event/contract.ts";
import type { Images } from "../image/contract.ts";
import type { DiskImages } from "../image/disk/contract.ts";
import type { MachineFiles } from "../image/machine/contract.ts";
import type { NetworkDriver } from "../network/contract.ts";
import type { Operations } from "../operation/contract.ts";
import type { Secrets } from "../secret/contract.ts";
import type { Pool } from "../storage/contract.ts";
import type { Store } from "../store/contract.ts";
import type { EnginesByKind } from "./engines.ts";

/** Everything the loop is built from; `bin/croftd.ts` puts it together, tests with memory drivers. */
export interface Parts {
  /** By the kind of instance they run. A kind without one is refused when it is asked for. */
  readonly engines: EnginesByKind;
  readonly pool: Pool;
  readonly network: NetworkDriver;
  readonly images: Images;
  readonly diskImages: DiskImages;
  readonly machineFiles: MachineFiles;
  readonly files: SubmittedFiles;
  readonly secrets: Secrets;
  readonly store: Store;
  readonly events: EventBus;
  readonly operations: Operations;
  readonly clock: Clock;
  /** Subnets for networks that name none are taken from here, e.g. `10.86.0.0/16`, a /24 each. */
  readonly subnetPool: string;
  /** Subnets that the host itself has addresses or routes in: never chosen. */
  readonly foreignSubnets: () => readonly string[];
}

/** Files and folders that came along with a stack file: tar archives by digest. */
export interface SubmittedFiles {
  /** Where the archive lies, for those who stream it. Throws `not-found`. */
  pathOf(digest: Digest): string;
  /** Its regular files, with paths relative to the folder; one submitted as a single file has the path `.`. */
  read(digest: Digest, call: Call): Promise<readonly SubmittedFile[]>;
  /** Deletes archives that nobody in `keep` needs. */
  collect(keep: ReadonlySet<Digest>, call: Call): Promise<void>;
}

export interface SubmittedFile {
  readonly path: string;
  readonly mode: number;
  readonly content: Uint8Array;
}

/** `shop.back` for the network `back` of stack `shop`; a name may say its stack itself: `shop/back`. */
export function networkIdOf(stack: string, name: string): NetworkId {
  return qualified(stack, name) as NetworkId;
}

/** As for networks. */
export function volumeIdOf(stack: string, name: string): VolumeId {
  return qualified(stack, name) as VolumeId;
}

function qualified(stack: string, name: string): string {
  return name.includes("/") ? name.replace("/", ".") : `${stack}.${name}`;
}
