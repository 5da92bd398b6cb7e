import { readText } from "../monitor/record.ts";

/**
 * How fast this host's time stamp counter runs, in kHz, as its kernel found out: what QEMU without KVM shows its guests as
 * theirs. Undefined where it cannot be told; a guest that is told wrong has a clock that runs wrong.
 */
export function hostTscKhz(): number | undefined {
  const text = readText("/proc/cpuinfo") ?? "";
  const flags = /^flags\s*:\s*(.*)$/m.exec(text)?.[1]?.split(" ") ?? [];
  const mhz = Number(/^cpu MHz\s*:\s*([0-9.]+)$/m.exec(text)?.[1]);
  if (!flags.includes("constant_tsc") || !Number.isFinite(mhz) || mhz <= 0) return undefined;
  return Math.round(mhz * 1000);
}
