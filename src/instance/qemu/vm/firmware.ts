import { existsSync, mkdirSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { hostFault } from "../../../host/errno.ts";
import { run } from "../../../host/process.ts";
import type { MachineLaunch } from "../../contract.ts";
import type { MachinePaths } from "./places.ts";

interface FirmwareFiles {
  readonly code: string;
  /** What a new machine's variables begin as. */
  readonly vars: string;
}

/**
 * Where Debian, and where Fedora and its kin keep OVMF. With Secure Boot: the build that keeps its variables out of the
 * guest's reach, and variables in which the keys of Microsoft are enrolled, which sign the loaders of all distributions.
 */
const places: Readonly<Record<"uefi" | "uefi-secure", readonly FirmwareFiles[]>> = {
  uefi: [
    { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", vars: "/usr/share/OVMF/OVMF_VARS_4M.fd" },
    { code: "/usr/share/edk2/ovmf/OVMF_CODE.fd", vars: "/usr/share/edk2/ovmf/OVMF_VARS.fd" },
  ],
  "uefi-secure": [
    { code: "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", vars: "/usr/share/OVMF/OVMF_VARS_4M.ms.fd" },
    { code: "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", vars: "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd" },
  ],
};

/** The files of a firmware; undefined for BIOS, which QEMU has itself. `unsupported` when it is not installed. */
export function findFirmware(kind: MachineLaunch["firmware"]): FirmwareFiles | undefined {
  if (kind === "bios") return undefined;
  const found = places[kind].find(({ code, vars }) => existsSync(code) && existsSync(vars));
  if (found !== undefined) return found;
  throw new Fault("unsupported", "the firmware for UEFI is not installed", {
    hint: "install it: apt-get install ovmf",
  });
}

/** Makes the machine's own variables when it has none. They are kept, as what the guest wrote there it needs to boot. */
export async function makeNvram({ vars }: FirmwareFiles, paths: MachinePaths, call: Call): Promise<void> {
  if (existsSync(paths.nvramFile)) return;
  const making = `${paths.nvramFile}.new`;
  try {
    mkdirSync(paths.keptDir, { recursive: true, mode: 0o700 });
    await rm(making, { force: true });
    const argv = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096", vars, making];
    await run(argv, { attempted: "make the firmware's variables", endsWithUs: true }, call);
    await rename(making, paths.nvramFile);
  } catch (error) {
    await rm(making, { force: true });
    throw hostFault(error, "make the firmware's variables");
  }
}
