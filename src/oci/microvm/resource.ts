import { isJson, type Json, own, recordsIn } from "../config/shape.ts";

/**
 * Limits that are not the guest's to keep. The guest keeps its program's memory and number of processes; what is the
 * host's to give (time and choice of its processors, its memory when that is short) is kept by the control group of the
 * container around QEMU. What would hold in neither is refused. Left out is what cannot be exceeded, as the guest has none
 * of it (swap, devices, RDMA), and limits on the kernel's own memory, as runc leaves them out.
 */

/** What is not 0 or empty is set: for runc, and so for its callers, those change nothing. Numbers beyond stand for "no limit". */
function setFields(value: unknown, names: readonly string[]): Json {
  return Object.fromEntries(
    names.flatMap((name) => {
      const field = own(value, name);
      const isSet =
        typeof field === "number" ? field !== 0 && field < 2 ** 53 : typeof field === "string" && field !== "";
      return isSet ? [[name, field]] : [];
    }),
  );
}

const cpuFields = ["shares", "quota", "burst", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"];
const unifiedOfHost = /^((cpu|cpuset|hugetlb)\.|memory\.(min$|low$|oom\.group$|swap\.|zswap\.))/;

/** What the control group around QEMU keeps, in the form of `linux.resources`. */
export function hostResources(resources: unknown): Json {
  const memory = own(resources, "memory");
  const swappiness = own(memory, "swappiness");
  const unified = own(resources, "unified");
  const parts: Json = {
    // A new group has no quota; that of one which had a quota is lifted by `update`.
    cpu: Object.fromEntries(
      Object.entries(setFields(own(resources, "cpu"), cpuFields)).filter(([, field]) => !(Number(field) < 0)),
    ),
    memory: {
      ...setFields(memory, ["reservation"]),
      // Here a 0 is something to ask for.
      ...(typeof swappiness === "number" && swappiness <= 100 ? { swappiness } : {}),
    },
    unified: Object.fromEntries(
      Object.entries(isJson(unified) ? unified : {}).filter(([name]) => unifiedOfHost.test(name)),
    ),
  };
  const pages = recordsIn(resources, "hugepageLimits").filter(({ limit }) => Number(limit) < 2 ** 53);
  return {
    ...Object.fromEntries(Object.entries(parts).filter(([, part]) => Object.keys(part as Json).length > 0)),
    ...(pages.length === 0 ? {} : { hugepageLimits: pages }),
  };
}

/** `resources` with those of the host in place of its own, field by field. */
export function withHostResources(resources: unknown, host: Json): Json {
  const whole: Json = isJson(resources) ? resources : {};
  const merged = Object.entries(host).map(([name, part]) => {
    const before = whole[name];
    return [name, isJson(before) && isJson(part) ? { ...before, ...part } : part] as const;
  });
  return { ...whole, ...Object.fromEntries(merged) };
}

const throttles = ["ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"].map((what) => `throttle${what}Device`);

/** What would hold neither in the guest nor around it, one sentence each. `prefix` is where the resources stand. */
export function resourceFindings(resources: unknown, prefix: string): string[] {
  const findings: string[] = [];
  const say = (field: string, why: string): void => void findings.push(`${prefix}${field}: ${why}`);
  const blockIO = own(resources, "blockIO");
  const aside = "a microVM's files are read and written by programs beside it, which it does not limit";
  for (const name of Object.keys(setFields(blockIO, ["weight", "leafWeight"]))) say(`blockIO.${name}`, aside);
  for (const name of ["weightDevice", ...throttles]) {
    if (recordsIn(blockIO, name).length > 0) say(`blockIO.${name}`, aside);
  }
  if (own(own(resources, "memory"), "disableOOMKiller") === true) {
    say("memory.disableOOMKiller", "the kernel of a microVM ends a program that takes more than its limit");
  }
  const network = own(resources, "network");
  const hidden = "the host does not see whose the packets of a microVM are";
  if (Object.keys(setFields(network, ["classID"])).length > 0) say("network.classID", hidden);
  if (recordsIn(network, "priorities").length > 0) say("network.priorities", hidden);
  const unified = own(resources, "unified");
  for (const name of Object.keys(isJson(unified) ? unified : {})) {
    if (!unifiedOfHost.test(name)) say(`unified.${name}`, "would limit QEMU, not what runs in the microVM");
  }
  return findings;
}
