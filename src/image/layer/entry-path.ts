import { Fault } from "../../base/fault.ts";

/** Linux's own limits: longer names could be stored, but nobody could open them. */
const maxPathBytes = 4095;
const maxNameBytes = 255;

/**
 * The components of a name in a tar, as `latin1` byte strings. A leading slash, `.` and doubled slashes mean nothing: an
 * absolute name is contained by reading it as relative to the layer's root, which has none.
 *
 * @throws Fault `hostile` for `..` or a NUL, `exhausted` when it is longer or deeper than can be opened.
 */
export function splitPath(path: string, maxDepth: number): string[] {
  if (path.includes("\0")) throw new Fault("hostile", "a name contains a NUL byte");
  if (path.length > maxPathBytes) {
    throw new Fault("exhausted", `its name has ${path.length} bytes; the limit is ${maxPathBytes}`);
  }
  const components: string[] = [];
  for (const component of path.split("/")) {
    if (component === "" || component === ".") continue;
    if (component === "..") throw new Fault("hostile", 'its name contains ".." and would leave the layer');
    if (component.length > maxNameBytes) {
      throw new Fault("exhausted", `a part of its name has ${component.length} bytes; the limit is ${maxNameBytes}`);
    }
    components.push(component);
  }
  if (components.length > maxDepth) {
    throw new Fault("exhausted", `it lies ${components.length} directories deep; the limit is ${maxDepth}`);
  }
  return components;
}
