import { constants } from "node:fs";
import { open, rm } from "node:fs/promises";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { readBounded } from "../../../host/file.ts";
import { hostFault } from "../../../host/errno.ts";
import type { Qmp } from "../qmp.ts";
import { ioPlace } from "./arguments.ts";
import type { MachinePaths } from "./places.ts";

/** The largest screen that the card shows, in a format that does not compress well. */
const maxPictureBytes = 64 * 2 ** 20;
const pngSignature = "89504e470d0a1a0a";

/** Has QEMU write a picture of the screen, and reads it without following where a QEMU gone bad would lead. */
export async function takeScreenshot(qmp: Qmp, paths: MachinePaths, call: Call): Promise<Uint8Array> {
  const attempted = "take a picture of the screen";
  try {
    await rm(paths.screenFile, { force: true });
    await qmp.execute("screendump", { filename: `${ioPlace}/screen.png`, format: "png" }, call);
    const file = await open(paths.screenFile, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const picture = await readBounded(file, maxPictureBytes, attempted);
      if (picture.toString("hex", 0, 8) === pngSignature) return picture;
      throw new Fault("failed", `${attempted}: QEMU did not write a PNG file`);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw hostFault(error, attempted);
  } finally {
    await rm(paths.screenFile, { force: true });
  }
}
