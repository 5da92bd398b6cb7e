import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { InstanceSchema, MountPointSchema } from "../../gen/croft/v1/instance_pb.ts";
import type { InstanceView } from "../../reconcile/contract.ts";
import type { EnvValue, MountSection } from "../../stack/model.ts";

/** An instance as clients see it. Values that come from secrets are not in a view, so they cannot leak from here. */
export function instanceMessage(view: InstanceView): MessageInitShape<typeof InstanceSchema> {
  const { section, exit, startedMs } = view;
  return {
    id: view.id,
    stack: view.stack,
    name: view.name,
    ordinal: view.ordinal,
    kind: section.kind,
    image: section.image,
    imageDigest: view.imageDigest ?? "",
    status: view.status,
    health: view.health,
    pid: view.pid ?? 0,
    created: timestampFromMs(view.createdMs),
    restarts: view.restarts,
    addresses: [...view.addresses],
    ports: [...section.publish],
    command: [...view.argv],
    labels: section.labels,
    message: view.message,
    limits: { ...view.limits },
    mounts: section.mounts.map(mountMessage),
    env: Object.fromEntries(Object.entries(section.env).map(([name, value]) => [name, shownValue(value)])),
    restartPolicy: section.restart,
    engine: view.engine,
    disks: (section.disks ?? []).map(({ name, from, sizeBytes }) => ({
      name,
      kind: from.kind,
      image: from.kind === "blank" ? "" : from.image,
      ...(sizeBytes !== undefined && { sizeBytes }),
    })),
    ...(startedMs !== undefined && { started: timestampFromMs(startedMs) }),
    ...(exit !== undefined && {
      exitCode: exit.code,
      oomKilled: exit.oomKilled,
      finished: timestampFromMs(exit.finishedMs),
    }),
  };
}

function shownValue(value: EnvValue): string {
  return "secret" in value ? `(secret ${value.secret})` : value.value;
}

function mountMessage(mount: MountSection): MessageInitShape<typeof MountPointSchema> {
  const { kind, destination } = mount;
  switch (mount.kind) {
    case "volume":
      return { kind, source: mount.volume, destination, readOnly: mount.readOnly };
    case "bind":
      return { kind, source: mount.source, destination, readOnly: mount.readOnly };
    case "tmpfs":
      return { kind, source: "", destination, readOnly: false };
    case "file":
      return { kind, source: mount.path, destination, readOnly: true };
    case "secret":
      return { kind, source: mount.secret, destination, readOnly: true };
  }
}
