import { gzipSync } from "node:zlib";
import { backgroundCall } from "../../base/call.ts";
import { qcow2, rawDisk } from "./image-fixture.ts";
import { DiskLibrary } from "./library.ts";

/** A process that imports, replaces and removes without end, for a test that kills it. */

const call = backgroundCall();
const [, , libDir = ""] = process.argv;
const library = await DiskLibrary.open({ libDir, holdersOf: async () => [] });
process.stdout.write("churning\n");

for (let size = 1; ; size = (size % 7) + 1) {
  const images = {
    raw: rawDisk(size * 2 ** 20),
    packed: gzipSync(rawDisk(size * 2 ** 21)),
    qcow2: qcow2(size * 2 ** 30),
  };
  const importing = Object.entries(images).map(([name, bytes]) =>
    library.import(
      {
        source: { kind: "bytes", filename: name, bytes: once(bytes) },
        allowUnverified: true,
        replace: true,
      },
      call,
    ),
  );
  await Promise.all(importing);
  await library.remove("packed", call);
  if (size % 2 === 0) await library.remove("raw", call);
  await library.collect([], call);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
