import { Fault } from "../../base/fault.ts";
import type { Bundle } from "../config/bundle.ts";
import type { Ground } from "../ground.ts";

export function makeMicrovm(_ground: Ground, id: string, _bundle: Bundle): number {
  throw new Fault("unsupported", `${id}: microVMs are not served by this release`);
}

export function actOnMicrovm(_ground: Ground): number {
  throw new Fault("unsupported", "microVMs are not served by this release");
}
