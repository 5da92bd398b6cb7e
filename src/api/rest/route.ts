import { closest } from "../../base/closest.ts";
import { bindingOf, type Binding, type Verb } from "./binding.ts";
import type { Served } from "../handler.ts";

/** Where a request goes. */
export type Found =
  | { readonly kind: "method"; readonly binding: Binding; readonly path: Readonly<Record<string, string>> }
  /** The path exists, but not with this verb. */
  | { readonly kind: "wrong-verb"; readonly allowed: readonly Verb[] }
  /** `near`: what was probably meant. */
  | { readonly kind: "unknown"; readonly near: readonly Binding[] };

/** All routes of the API. */
export class Routes {
  readonly #bindings: readonly Binding[];
  /** By number of segments and action, so that a request is compared with a handful of routes. */
  readonly #byShape: ReadonlyMap<string, readonly Binding[]>;

  constructor(services: readonly Served[]) {
    this.#bindings = services.flatMap(({ service }) => service.methods.map(bindingOf));
    this.#byShape = Map.groupBy(this.#bindings, ({ segments, action }) => `${segments.length}:${action}`);
  }

  /**
   * Finds the method for a path as it came over the wire. A variable takes one segment, so a `/` within a name is sent as
   * `%2F`. A name may hold a colon (`nginx:1.27`): what follows the last one is an action only where a route says so.
   */
  find(verb: string, rawPath: string): Found {
    const parts = rawPath.slice(1).split("/");
    const last = parts.at(-1) ?? "";
    const colon = last.lastIndexOf(":");
    const allowed: Verb[] = [];
    if (colon > 0) {
      const acting = [...parts.slice(0, -1), last.slice(0, colon)];
      const found = this.#match(verb, acting, last.slice(colon + 1), allowed);
      if (found !== undefined) return found;
    }
    const found = this.#match(verb, parts, "", allowed);
    if (found !== undefined) return found;
    if (allowed.length > 0) return { kind: "wrong-verb", allowed };
    const near = closest(rawPath, new Set(this.#bindings.map(({ template }) => template)));
    return { kind: "unknown", near: this.#bindings.filter(({ template }) => template === near) };
  }

  #match(verb: string, parts: readonly string[], action: string, allowed: Verb[]): Found | undefined {
    for (const binding of this.#byShape.get(`${parts.length}:${action}`) ?? []) {
      const path = variables(binding, parts);
      if (path === undefined) continue;
      if (binding.verb === verb) return { kind: "method", binding, path };
      allowed.push(binding.verb);
    }
    return undefined;
  }
}

function variables({ segments }: Binding, parts: readonly string[]): Record<string, string> | undefined {
  const path: Record<string, string> = {};
  for (const [at, segment] of segments.entries()) {
    const part = parts[at] ?? "";
    if ("literal" in segment) {
      if (segment.literal !== part) return undefined;
      continue;
    }
    if (part === "") return undefined;
    try {
      path[segment.field] = decodeURIComponent(part);
    } catch {
      return undefined;
    }
  }
  return path;
}
