import type { Sections } from "./document.ts";
import type { MachineInput } from "./guest-shape.ts";
import type { Written } from "./instance.ts";
import type { Report } from "./problem.ts";
import { suggest } from "./suggest.ts";
import { checkSecretName, type Usage } from "./usage.ts";

/** Checks what only a full machine has: its disks, what cloud-init is told, its processors. */
export function checkMachine(
  report: Report,
  sections: Sections,
  { path, input }: Written<MachineInput>,
  used: Usage,
): void {
  checkBoot(report, path, input);
  checkTopology(report, path, input);
  const cloudInit = input["cloud-init"];
  if (cloudInit === undefined) return;
  if (cloudInit === false) {
    warnUntold(report, path, input, false);
    return;
  }
  if (cloudInit["meta-data"] !== undefined) warnUntold(report, path, input, true);
  for (const [file, text] of Object.entries(cloudInit)) {
    if (text === undefined || !("secret" in text)) continue;
    checkSecretName(report, sections, [...path, "cloud-init", file, "secret"], text.secret, used);
  }
}

/**
 * What is set and does not reach the machine. Keys and name travel in the meta-data that is made: of one that is given
 * nothing is changed, and without cloud-init there is none.
 */
function warnUntold(report: Report, path: Written["path"], input: MachineInput, isGiven: boolean): void {
  const where = isGiven ? "beside a meta-data of yours" : "without cloud-init";
  const mend = (member: string): string =>
    isGiven ? `write ${member} into it, or take meta-data out of cloud-init` : "take cloud-init = false out";
  if ((input["ssh-keys"] ?? []).length > 0) {
    const why = `${where} nobody puts these keys into the machine`;
    report.warn([...path, "ssh-keys"], why, mend("public-keys"));
  }
  if (input.hostname !== undefined) {
    report.warn([...path, "hostname"], `${where} nobody calls the machine so`, mend("local-hostname"));
  }
}

/** The names of all its disks, in the order of the file. */
export function diskNames({ disk, disks = {} }: MachineInput): readonly string[] {
  return [
    ...(disk?.image === undefined && disk?.blank !== true ? [] : ["root"]),
    ...(disk?.iso === undefined ? [] : ["iso"]),
    ...Object.keys(disks),
  ];
}

function checkBoot(report: Report, path: Written["path"], input: MachineInput): void {
  const { boot = [] } = input;
  const names = diskNames(input);
  for (const [index, name] of boot.entries()) {
    const at = [...path, "boot", index];
    if (!names.includes(name)) report.error(at, `there is no disk "${name}"`, suggest(name, names, "add it to disks"));
    else if (boot.indexOf(name) !== index) report.error(at, `"${name}" is named twice`, "remove one of the two");
  }
}

function checkTopology(report: Report, path: Written["path"], { cpus = 1, topology }: MachineInput): void {
  if (topology === undefined) return;
  const { sockets = 1, cores = 1, threads = 1 } = topology;
  const count = sockets * cores * threads;
  if (count === Math.ceil(cpus)) return;
  report.error(
    [...path, "topology"],
    `this makes ${count} processors, but cpus is ${cpus}`,
    `write cpus = ${count}, or another topology`,
  );
}
