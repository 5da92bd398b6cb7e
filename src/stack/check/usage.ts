import { closest } from "../../base/closest.ts";
import type { KeyPath } from "../parse/place.ts";
import type { Sections } from "./document.ts";
import type { Report } from "./problem.ts";

/** What some section names, for telling what none does. */
export class Usage {
  readonly network = new Set<string>();
  readonly volume = new Set<string>();
  readonly secret = new Set<string>();
  readonly image = new Set<string>();
}

/** Checks that the secret named at `path` is one of this file. */
export function checkSecretName(report: Report, sections: Sections, path: KeyPath, secret: string, used: Usage): void {
  used.secret.add(secret);
  if (sections.secret.has(secret)) return;
  const near = closest(secret, sections.secret.keys());
  const declare = `[secret.${secret}] with generate = { length = 32 }`;
  report.error(
    path,
    `there is no secret "${secret}"`,
    near === undefined ? `declare it: ${declare}` : `did you mean "${near}"?`,
  );
}
