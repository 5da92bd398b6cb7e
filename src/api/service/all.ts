import type { Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { eventService } from "./event.ts";
import { hostService } from "./host.ts";
import { imageService } from "./image.ts";
import { instanceService } from "./instance.ts";
import { libraryService } from "./library.ts";
import { machineService } from "./machine.ts";
import { networkService } from "./network.ts";
import { operationService } from "./operation.ts";
import { poolService } from "./pool.ts";
import { secretService } from "./secret.ts";
import { stackService } from "./stack.ts";
import { volumeService } from "./volume.ts";

/** Every service of the API: a method is served exactly when it is in one of these. */
export function services(needs: Needs): readonly Served[] {
  return [
    eventService(needs),
    hostService(needs),
    imageService(needs),
    instanceService(needs),
    libraryService(needs),
    machineService(needs),
    networkService(needs),
    operationService(needs),
    poolService(needs),
    secretService(needs),
    stackService(needs),
    volumeService(needs),
  ];
}
