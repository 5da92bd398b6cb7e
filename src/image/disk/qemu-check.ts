import { type Call, throwIfCancelled } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { confinedFile, startConfined } from "./confined.ts";

const bounds = { memoryBytes: 2 * 2 ** 30, seconds: 600 };
/** Clusters that nobody uses: the image is only larger than it need be. */
const leaksOnly = 3;

/**
 * Lets QEMU walk all tables of a qcow2 whose header was found sound and names no other file. Throws `corrupt` for one
 * with clusters beyond its end, used twice, or counted wrongly.
 */
export async function checkQcow2(path: string, what: string, call: Call): Promise<void> {
  const argv = ["qemu-img", "check", "--force-share", "-f", "qcow2", confinedFile];
  const qemu = await startConfined(argv, path, bounds, call);
  qemu.stdout.resume();
  const { code, signal, lastWords } = await qemu.ended;
  throwIfCancelled(call);
  if (code === 0 || code === leaksOnly) return;
  const first = lastWords.split("\n").find((line) => !line.includes("Leaked")) ?? "";
  throw new Fault("corrupt", `${what}: QEMU finds it broken: ${first || `qemu-img ended with ${signal ?? code}`}`, {
    hint: "get it anew where it comes from",
  });
}
