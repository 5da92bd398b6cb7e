import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { MachineDisk, MachineLaunch } from "../instance/contract.ts";
import type { Attachment } from "../network/contract.ts";
import type { InjectedText, InstanceSection, MachineMembers } from "../stack/model.ts";
import type { DesiredInstance } from "../stack/plan/step.ts";
import type { Secrets } from "../secret/contract.ts";
import { displayName, limitsOf } from "./launch.ts";
import type { SubmittedFiles } from "./parts.ts";

/** The members that a section has because it is a machine's. */
export function machineOf(section: InstanceSection): MachineMembers {
  const { disks, firmware, tpm, cloudInit, sshKeys, hugepages, balloon, passthrough, cpuModel, topology } = section;
  const isWhole = disks && firmware && tpm !== undefined && cloudInit && sshKeys && passthrough;
  if (!isWhole || hugepages === undefined || balloon === undefined) {
    throw new Fault("bug", `a ${section.kind} that begins as ${section.image} is no whole machine`);
  }
  return {
    disks,
    firmware,
    tpm,
    cloudInit,
    sshKeys,
    hugepages,
    balloon,
    passthrough,
    ...(cpuModel === undefined ? {} : { cpuModel }),
    ...(topology === undefined ? {} : { topology }),
  };
}

/** Puts together what an engine of full machines needs, cloud-init's three files filled in. */
export async function machineLaunchOf(
  stack: string,
  instance: DesiredInstance,
  attached: { readonly attachment: Attachment; readonly disks: readonly MachineDisk[]; readonly routed: number },
  sources: { readonly files: SubmittedFiles; readonly secrets: Secrets },
  call: Call,
): Promise<MachineLaunch> {
  const { section } = instance;
  const machine = machineOf(section);
  const hostname = section.hostname ?? displayName(instance);
  const { cpuModel, topology } = machine;
  const cloudInit = await cloudInitOf(stack, instance, { ...attached, hostname }, sources, call);
  return {
    kind: "machine",
    id: instance.id,
    attachment: attached.attachment,
    disks: attached.disks,
    hostname,
    firmware: machine.firmware,
    tpm: machine.tpm,
    hugepages: machine.hugepages,
    balloon: machine.balloon,
    passthrough: machine.passthrough,
    limits: limitsOf(instance),
    log: section.log,
    labels: section.labels,
    ...(cloudInit === undefined ? {} : { cloudInit }),
    ...(cpuModel === undefined ? {} : { cpuModel }),
    ...(topology === undefined ? {} : { topology }),
  };
}

async function cloudInitOf(
  stack: string,
  instance: DesiredInstance,
  facts: { readonly attachment: Attachment; readonly routed: number; readonly hostname: string },
  { files, secrets }: { readonly files: SubmittedFiles; readonly secrets: Secrets },
  call: Call,
): Promise<MachineLaunch["cloudInit"]> {
  const { cloudInit, sshKeys } = machineOf(instance.section);
  if (cloudInit.kind === "none") return undefined;
  const readFile = async (path: string): Promise<string> => {
    const digest = instance.files[path];
    if (digest === undefined) throw new Fault("bug", `file ${path} of ${instance.id} was not submitted`);
    const [file] = await files.read(digest, call);
    if (file === undefined) throw new Fault("invalid", `${path} is not a file`, { hint: "name a file, not a folder" });
    return Buffer.from(file.content).toString("utf8");
  };
  const read = async (text: InjectedText): Promise<string> => {
    if ("path" in text) return await readFile(text.path);
    const version = instance.secrets[text.secret];
    if (version === undefined) throw new Fault("bug", `secret ${text.secret} of ${instance.id} has no version`);
    return (await secrets.resolve(stack, text.secret, version, call)).revealText();
  };
  const { userData, metaData, networkConfig } = cloudInit;
  const keys: string[] = [];
  for (const key of sshKeys) keys.push(...keysIn("key" in key ? key.key : await readFile(key.path)));
  return {
    userData: userData === undefined ? "#cloud-config\n{}\n" : await read(userData),
    metaData: metaData === undefined ? defaultMetaData(instance.id, facts.hostname, keys) : await read(metaData),
    networkConfig: networkConfig === undefined ? defaultNetworkConfig(facts) : await read(networkConfig),
  };
}

/** JSON is YAML. Keys given here reach the image's default user, whatever the user-data says. */
function defaultMetaData(id: string, hostname: string, keys: readonly string[]): string {
  const data = { "instance-id": id, "local-hostname": hostname, ...(keys.length === 0 ? {} : { "public-keys": keys }) };
  return `${JSON.stringify(data, undefined, 2)}\n`;
}

/** Version 2, each nic by its MAC address: what it is called is up to the guest. `routed`: the one that leads out. */
function defaultNetworkConfig({
  attachment,
  routed,
}: {
  readonly attachment: Attachment;
  readonly routed: number;
}): string {
  if (attachment.kind !== "tap") throw new Fault("bug", `a machine has taps, not a ${attachment.kind}`);
  const { taps, gateway, resolvers } = attachment;
  const ethernets = taps.map(({ mac, address, prefixLength }, index) => [
    `nic${index}`,
    {
      match: { macaddress: mac },
      dhcp4: false,
      dhcp6: false,
      addresses: [`${address}/${prefixLength}`],
      ...(index === routed && gateway !== undefined ? { routes: [{ to: "0.0.0.0/0", via: gateway }] } : {}),
      ...(resolvers.length === 0 ? {} : { nameservers: { addresses: resolvers } }),
    },
  ]);
  return `${JSON.stringify({ version: 2, ethernets: Object.fromEntries(ethernets) }, undefined, 2)}\n`;
}

/** Lines as in `authorized_keys`, without comments. */
function keysIn(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}
