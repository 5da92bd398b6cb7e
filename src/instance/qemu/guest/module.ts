import { basename } from "node:path";
import { Fault } from "../../../base/fault.ts";

/**
 * Files of a kernel's modules, in the order in which they can be loaded, for those asked for by name. `dependencies` is
 * the text of its `modules.dep`, `builtin` that of `modules.builtin`: what is built in needs no file. `unsupported` when
 * the kernel has one of them in neither way, unless it is `optional`.
 */
export function moduleOrder(
  wanted: readonly string[],
  optional: readonly string[],
  dependencies: string,
  builtin: string,
): string[] {
  const entries = new Map<string, { readonly path: string; readonly needs: readonly string[] }>();
  for (const line of dependencies.split("\n")) {
    const [path, needs = ""] = line.split(":");
    if (path === undefined || path === "") continue;
    entries.set(moduleName(path), { path, needs: needs.split(" ").filter(Boolean).map(moduleName) });
  }
  const inKernel = new Set(builtin.split("\n").filter(Boolean).map(moduleName));
  const order: string[] = [];
  const add = (name: string, isOptional: boolean): void => {
    const entry = entries.get(name);
    if (entry === undefined) {
      if (inKernel.has(name) || isOptional) return;
      throw new Fault("unsupported", `the kernel has no ${name}, neither built in nor as a module`, {
        hint: "use a kernel of the distribution: apt-get install linux-image-cloud-amd64",
      });
    }
    if (order.includes(entry.path)) return;
    for (const need of entry.needs) add(need, false);
    order.push(entry.path);
  };
  for (const name of wanted) add(name, false);
  for (const name of optional) add(name, true);
  return order;
}

/** `virtio_rng` for `kernel/drivers/…/virtio-rng.ko.xz`: to the kernel both marks are one. */
export function moduleName(path: string): string {
  return (basename(path).split(".")[0] ?? "").replaceAll("-", "_");
}
