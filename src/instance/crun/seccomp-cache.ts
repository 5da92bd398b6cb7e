import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { canonicalJson, shortHash } from "../../base/id.ts";
import { writeFileAtomic } from "../../host/file.ts";
import type { OciConfig } from "./config.ts";
import type { InstancePaths, Layout } from "../monitor/layout.ts";
import type { Runtime } from "../monitor/runtime.ts";

/** By this annotation crun takes a compiled filter and does not compile one itself. */
const annotation = "run.oci.seccomp_bpf_data";

/**
 * Compiling the filter takes crun longer than all the rest of making a container. It is the same program each time, and
 * crun leaves it beside its records: kept on tmpfs it goes into the next configuration ready-made. A new crun compiles
 * anew, as its file is part of the name.
 */
export class SeccompCache {
  readonly #layout: Layout;
  readonly #compiled = new Map<string, string>();

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** The configuration with the filter ready-made, where it is known. */
  prepared(config: OciConfig, runtime: Runtime): OciConfig {
    if (runtime.name !== "crun") return config;
    const path = this.#pathFor(config, runtime);
    const known = this.#compiled.get(path) ?? (existsSync(path) ? readFileSync(path, "base64") : undefined);
    if (known === undefined) return config;
    this.#compiled.set(path, known);
    return { ...config, annotations: { [annotation]: known } };
  }

  /** Keeps what crun compiled for a container that it has just made of this configuration. */
  async learn(config: OciConfig, runtime: Runtime, paths: InstancePaths): Promise<void> {
    if (runtime.name !== "crun" || config.annotations !== undefined) return;
    const left = join(paths.stateDir, "seccomp.bpf");
    // Older ones do not leave it.
    if (existsSync(left)) await writeFileAtomic(this.#pathFor(config, runtime), readFileSync(left));
  }

  #pathFor(config: OciConfig, runtime: Runtime): string {
    const { mtimeMs, size } = statSync(runtime.program);
    return join(
      this.#layout.runDir,
      `seccomp-${shortHash(canonicalJson([config.linux.seccomp, mtimeMs, size]), 16)}.bpf`,
    );
  }
}
