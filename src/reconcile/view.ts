import type { InstanceId } from "../base/id.ts";
import { parseInstanceId } from "../base/id.ts";
import type { InstanceFacts } from "../instance/contract.ts";
import type { DesiredInstance } from "../stack/plan/step.ts";
import type { InstanceView } from "./contract.ts";
import { displayName, limitsOf } from "./launch.ts";
import { networkIdOf } from "./parts.ts";
import type { Shared, StackLoop } from "./stack-loop.ts";

/** Every instance of a stack as people see it: those wanted, and those on their way out. */
export function viewsOf(loop: StackLoop, shared: Shared): readonly InstanceView[] {
  const { state } = loop;
  const views: InstanceView[] = [];
  const seen = new Set<InstanceId>();
  for (const instance of state.desired().instances) {
    seen.add(instance.id);
    views.push(toView(instance.id, instance, loop, shared));
  }
  for (const id of shared.sight.ofStack(state.name)) {
    if (!seen.has(id) && shared.sight.instances.has(id)) views.push(toView(id, undefined, loop, shared));
  }
  return views.filter((view) => view.section !== undefined);
}

/** One instance of a stack; undefined when it is neither wanted nor there. */
export function viewOf(id: InstanceId, loop: StackLoop, shared: Shared): InstanceView | undefined {
  const desired = loop.state.desiredInstance(id);
  if (desired === undefined && !shared.sight.instances.has(id)) return undefined;
  const view = toView(id, desired, loop, shared);
  return view.section === undefined ? undefined : view;
}

function toView(id: InstanceId, desired: DesiredInstance | undefined, loop: StackLoop, shared: Shared): InstanceView {
  const { sight, health, book, engines } = shared;
  const facts = sight.instances.get(id);
  const record = loop.state.instance(id);
  const { name = "", ordinal = 1 } = parseInstanceId(id) ?? {};
  // An instance without a record was half-made by a daemon that died: nothing is known of it but its name.
  const section = (desired?.section ?? record?.section) as InstanceView["section"];
  const running = facts?.status === "running";
  return {
    id,
    stack: loop.state.name,
    name: section === undefined ? name : displayName({ name, ordinal, section }),
    ordinal,
    section,
    ...(desired?.image === undefined ? {} : { imageDigest: desired.image }),
    status: statusOf(facts, desired),
    health: section?.health === undefined || !running ? "none" : health.health(id).health,
    ...(facts?.pid === undefined ? {} : { pid: facts.pid }),
    createdMs: record?.createdMs ?? 0,
    ...(facts?.startedMs === undefined ? {} : { startedMs: facts.startedMs }),
    ...(facts?.exit === undefined ? {} : { exit: facts.exit }),
    restarts: record?.restarts ?? 0,
    addresses: (section?.networks ?? []).flatMap((network) => {
      const address = book.addressOf(id, networkIdOf(loop.state.name, network));
      return address === undefined ? [] : [{ network, address }];
    }),
    message: loop.messageOf(id),
    limits: facts?.limits ?? (desired === undefined ? {} : limitsOf(desired)),
    argv: [...(section?.entrypoint ?? []), ...(section?.command ?? [])],
    engine: (sight.engineOf(id) ?? engines.find(section?.kind ?? "container"))?.name ?? "",
  };
}

function statusOf(facts: InstanceFacts | undefined, desired: DesiredInstance | undefined): InstanceView["status"] {
  if (facts === undefined) return "pending";
  if (desired === undefined || !desired.running) return facts.status === "running" ? "stopping" : plain(facts);
  if (facts.status === "exited" && staysRestarting(facts, desired)) return "restarting";
  return plain(facts);
}

function staysRestarting(facts: InstanceFacts, desired: DesiredInstance): boolean {
  const { restart } = desired.section;
  return restart === "always" || (restart === "on-failure" && facts.exit?.code !== 0);
}

function plain(facts: InstanceFacts): InstanceView["status"] {
  return facts.status === "frozen" ? "paused" : facts.status;
}
