import { formatDuration, formatSize } from "../../base/unit.ts";
import type { DiskImage, Image } from "../../client/message.ts";
import { command as define, flag } from "../command.ts";
import { printJson, say, type Context } from "../context.ts";
import { renderTable, type Column } from "../table.ts";

export const command = define({
  flags: {
    quiet: flag.toggle("Print digests only", { short: "q" }),
    disks: flag.toggle("List disk images and ISOs, which machines begin with"),
  },
  async run({ flags }, context) {
    const { client, out, clock } = context;
    if (flags.disks) return await listDisks(flags.quiet, context);
    const list = await client.images.list();
    if (context.json) return await printJson(context, list);
    const { images } = list;
    if (flags.quiet) return await out.write(images.map(({ digest }) => `${digest}\n`).join(""));
    if (images.length === 0) return await say(context, "no images: croft image pull fetches one");
    // A line for each name, as people look for one.
    const rows = images.flatMap((image) =>
      image.references.length === 0 ? [{ ...image, name: "–" }] : image.references.map((name) => ({ ...image, name })),
    );
    await out.write(renderTable(columns(clock.nowMs()), rows, out));
  },
});

async function listDisks(quiet: boolean, context: Context): Promise<void> {
  const { client, out, clock } = context;
  const list = await client.library.list();
  if (context.json) return await printJson(context, list);
  const { images } = list;
  if (quiet) return await out.write(images.map(({ digest }) => `${digest}\n`).join(""));
  if (images.length === 0) return await say(context, "no disk images: croft image import brings one in");
  await out.write(renderTable(diskColumns(clock.nowMs()), images, out));
}

function diskColumns(nowMs: number): readonly Column<DiskImage>[] {
  return [
    { title: "DISK IMAGE", cell: ({ names }) => (names.length === 0 ? "–" : names.join(" ")), yields: 2 },
    { title: "KIND", cell: ({ kind, format }) => (kind === "iso" ? "iso" : format) },
    { title: "DIGEST", cell: ({ digest }) => ({ text: digest.replace("sha256:", "").slice(0, 12), tint: "dim" }) },
    { title: "SIZE", cell: ({ sizeBytes }) => formatSize(sizeBytes), align: "right" },
    { title: "A GUEST SEES", cell: ({ virtualSizeBytes }) => formatSize(virtualSizeBytes), align: "right", yields: 4 },
    { title: "VERIFIED BY", cell: ({ verified }) => (verified === "no" ? "nothing" : verified) },
    { title: "AGE", cell: ({ imported }) => ageOf(imported, nowMs), align: "right" },
    { title: "USED BY", cell: ({ usedBy }) => ({ text: usedBy.join(" "), tint: "dim" }), yields: 3, optional: true },
  ];
}

function columns(nowMs: number): readonly Column<Image & { readonly name: string }>[] {
  return [
    { title: "IMAGE", cell: ({ name }) => name, yields: 2 },
    { title: "DIGEST", cell: ({ digest }) => ({ text: digest.replace("sha256:", "").slice(0, 12), tint: "dim" }) },
    { title: "SIZE", cell: ({ sizeBytes }) => formatSize(sizeBytes), align: "right" },
    { title: "PLATFORM", cell: ({ os, architecture }) => `${os}/${architecture}`, yields: 4 },
    { title: "AGE", cell: ({ created }) => ageOf(created, nowMs), align: "right" },
    { title: "USED BY", cell: ({ usedBy }) => ({ text: usedBy.join(" "), tint: "dim" }), yields: 3, optional: true },
  ];
}

/** Images that are built to be the same every time claim to be from 1970: that is no age. */
function ageOf(created: string | undefined, nowMs: number): string {
  const createdMs = Date.parse(created ?? "");
  return Number.isNaN(createdMs) || createdMs < 86_400_000 ? "" : formatDuration(nowMs - createdMs);
}
