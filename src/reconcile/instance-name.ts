import { Fault } from "../base/fault.ts";
import type { InstanceView } from "./contract.ts";

/** The one instance a person means by `web`, `web-2`, `shop/web`, `shop/web-2`, an id, or the start of one. */
export function findInstance(views: readonly InstanceView[], name: string): InstanceView {
  const matches = selectInstances(views, name);
  const [first, ...others] = matches;
  if (first === undefined) throw notFound(views, name);
  if (others.length > 0) {
    throw new Fault("invalid", `"${name}" means several instances: ${matches.map(fullName).join(", ")}`, {
      hint: "say which one",
    });
  }
  return first;
}

/** As `findInstance`, but a section's name means all its replicas, and `shop/` all of a stack. Empty when none match. */
export function selectInstances(views: readonly InstanceView[], name: string): readonly InstanceView[] {
  const slash = name.indexOf("/");
  const stack = slash < 0 ? undefined : name.slice(0, slash);
  const rest = name.slice(slash + 1);
  const within = stack === undefined ? views : views.filter((view) => view.stack === stack);
  if (stack !== undefined && rest === "") return within;
  const exact = within.filter(
    (view) => view.id === rest || view.name === rest || `${sectionOf(view)}-${view.ordinal}` === rest,
  );
  if (exact.length > 0) return exact;
  return within.filter((view) => sectionOf(view) === rest);
}

export function notFound(views: readonly InstanceView[], name: string): Fault {
  const members = views.filter((view) => view.stack === name);
  if (members.length > 0) {
    return new Fault("not-found", `${name} is a stack, not an instance`, {
      hint: `name one of its instances: ${members.slice(0, 5).map(fullName).join(", ")}; croft logs ${name}/ shows all`,
    });
  }
  const near = views.map(fullName).filter((known) => known.includes(name.slice(name.indexOf("/") + 1)));
  const known = (near.length > 0 ? near : views.map(fullName)).slice(0, 5).join(", ");
  return new Fault("not-found", `there is no instance ${name}`, {
    hint: known === "" ? "nothing is running; see: croft ps --all" : `there is: ${known}`,
  });
}

/** `shop/web-1`; `late` for what `croft run --name late` made, whose stack is called the same. */
export function fullName(view: InstanceView): string {
  return view.stack === view.name ? view.name : `${view.stack}/${view.name}`;
}

function sectionOf(view: InstanceView): string {
  return view.id.split(".")[1] ?? "";
}
