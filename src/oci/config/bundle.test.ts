import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { readBundle } from "./bundle.ts";

const directory = realpathSync(mkdtempSync(join(tmpdir(), "croft-oci-bundle-")));
after(() => rmSync(directory, { recursive: true }));
const bundle = join(directory, "bundle");
mkdirSync(join(bundle, "rootfs"), { recursive: true });
mkdirSync(join(bundle, "data"));
mkdirSync(join(directory, "outside", "deep"), { recursive: true });
symlinkSync("../outside", join(bundle, "out"));
symlinkSync("data", join(bundle, "in"));
symlinkSync("nothing", join(bundle, "dangling"));

function read(mount: object): unknown {
  const config = {
    ociVersion: "1.0.2",
    root: { path: "rootfs" },
    process: { cwd: "/", args: ["sh"] },
    mounts: [{ destination: "/x", ...mount }],
  };
  writeFileSync(join(bundle, "other.json"), JSON.stringify(config));
  return readBundle(bundle, "other.json").configFile;
}

for (const source of ["out", "out/deep", "in/../out"]) {
  test(`a bind of ${source}, which leaves the bundle by a link, is refused`, () => {
    assert.throws(() => read({ type: "bind", source }), {
      reason: "hostile",
      message: /mounts\[0\]\.source: .* leads out of the bundle by a link/,
    });
  });
}

for (const source of ["data", "in", "rootfs/../data", "dangling", join(directory, "outside")]) {
  test(`a bind of ${source.replace(directory, "/elsewhere")} is taken`, () => {
    assert.equal(read({ source, options: ["rbind"] }), join(bundle, "other.json"));
  });
}

test("a source that is no path is not followed", () => {
  read({ type: "tmpfs", source: "out" });
});
