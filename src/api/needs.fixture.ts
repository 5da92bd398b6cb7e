import { Fault } from "../base/fault.ts";
import { instanceId, sha256, type NetworkId, type OperationId, type VolumeId } from "../base/id.ts";
import { Wake } from "../base/wake.ts";
import { MemoryEventBus } from "../event/memory/event-bus.ts";
import type { Image } from "../image/contract.ts";
import type { DiskImage } from "../image/disk/contract.ts";
import type { Session, SnapshotFacts } from "../instance/contract.ts";
import type { Operation } from "../operation/contract.ts";
import type { InstanceView, Preview } from "../reconcile/contract.ts";
import { instanceDefaults } from "../stack/default.ts";
import type { Generation, InstanceSection } from "../stack/model.ts";
import type { Needs } from "./need.ts";

/** The time at which everything here happened. */
export const thenMs = Date.UTC(2026, 0, 2, 3, 4, 5, 678);

const digest = sha256("image");

const section: InstanceSection = {
  ...instanceDefaults,
  image: "nginx:1.27",
  env: { LOG: { value: "debug" }, PASSWORD: { secret: "db-password" } },
  mounts: [{ kind: "volume", volume: "db", destination: "/data", readOnly: false }],
  publish: [{ hostAddress: "0.0.0.0", hostPort: 8080, port: 80, protocol: "tcp" }],
  needs: [],
  labels: { tier: "front" },
  capabilities: { add: [], drop: [] },
};

export function exampleInstance(ordinal = 1): InstanceView {
  return {
    id: instanceId("shop", "web", ordinal, "0123abcd"),
    stack: "shop",
    name: `web-${ordinal}`,
    ordinal,
    section,
    imageDigest: digest,
    status: "running",
    health: "healthy",
    pid: 4000 + ordinal,
    createdMs: thenMs,
    startedMs: thenMs + 20,
    restarts: 0,
    addresses: [{ network: "shop.default", address: `10.88.0.${ordinal + 1}` }],
    message: "",
    limits: { memoryBytes: 2 ** 29, cpus: 1.5 },
    argv: ["nginx", "-g", "daemon off;"],
    engine: "crun",
  };
}

const image: Image = {
  digest,
  references: ["docker.io/library/nginx:1.27"],
  config: {
    entrypoint: ["/entry"],
    command: ["nginx"],
    env: { PATH: "/bin" },
    user: "",
    workdir: "/",
    volumes: [],
    exposedPorts: ["80/tcp"],
    labels: {},
    architecture: "amd64",
    os: "linux",
  },
  layers: [{ digest: sha256("layer"), path: "/layers/a", sizeBytes: 5 }],
  createdMs: thenMs,
  sizeBytes: 5 * 2 ** 30,
};

const diskImage: DiskImage = {
  digest,
  names: ["debian-12.qcow2"],
  path: "/library/debian",
  format: "qcow2",
  kind: "disk",
  virtualSizeBytes: 2 ** 31,
  sizeBytes: 2 ** 29,
  verified: "checksum",
  origin: "https://example.org/debian-12.qcow2",
  importedMs: thenMs,
};

const snapshot: SnapshotFacts = { name: "before", memory: true, createdMs: thenMs, usedBytes: 2 ** 30 };

const operation: Operation = {
  id: "op-1" as OperationId,
  kind: "stack.apply",
  subject: "shop",
  status: "running",
  startedMs: thenMs,
  progress: [{ topic: "pull nginx:1.27", state: "downloading", done: 1, total: 2, unit: "bytes" }],
};

const finished: Operation = {
  ...operation,
  status: "succeeded",
  finishedMs: thenMs + 9,
  progress: [],
  result: { generation: 3 },
};

const generation: Generation = {
  spec: { stack: "shop", networks: {}, volumes: {}, secrets: {}, images: {}, instances: { web: section } },
  images: { "nginx:1.27": digest },
  secrets: {},
  files: {},
};

const preview: Preview = {
  stack: "shop",
  baseGeneration: 2,
  after: generation,
  plan: {
    steps: [
      {
        key: "start-instance a",
        action: { kind: "start-instance", instance: exampleInstance().id },
        cost: "none",
        why: "it is new",
        after: [],
      },
    ],
    refusals: [{ subject: "volume.db", why: "it is protected", hint: "set protect = false" }],
  },
  missingImages: ["nginx:1.27"],
};

function missing(what: string, name: string): Fault {
  return new Fault("not-found", `there is no ${what} ${name}`, { hint: "look again", detail: { name } });
}

function knownStack(stack: string): void {
  if (stack !== "shop") throw missing("stack", stack);
}

/** The world as an API test needs it: it answers the same to the same question, and knows nothing called `nosuch`. */
export function exampleNeeds(instances: readonly InstanceView[] = [exampleInstance()]): Needs & { revision: number } {
  const find = (name: string): InstanceView => {
    const view = instances.find((view) => view.name === name || `${view.stack}/${view.name}` === name);
    if (view === undefined) throw missing("instance", name);
    return view;
  };
  const byId = (id: string): InstanceView => instances.find((view) => view.id === id) ?? exampleInstance();
  const events = new MemoryEventBus({ ...silentClock, nowMs: () => thenMs });
  const needs: Needs & { revision: number } = {
    revision: 1,
    events,
    cloud: {
      stacks: {
        preview: async () => preview,
        apply: async () => operation,
        build: async () => operation,
        async remove(stack: string) {
          knownStack(stack);
          return operation;
        },
        async rollback(stack: string) {
          knownStack(stack);
          return operation;
        },
        list: () => [stackView],
        get(stack: string) {
          knownStack(stack);
          return stackView;
        },
        async generations(stack: string) {
          knownStack(stack);
          return [generationView];
        },
        async compare(stack: string) {
          knownStack(stack);
          return { from: 1, to: 2, before: undefined, after: generation };
        },
        imagesInUse: async () => new Map([[digest, ["shop/web"]]]),
        collect: async () => {},
        networks: () => [networkView],
        volumes: async () => [volumeView],
        async removeVolume() {
          throw new Fault("protected", "remove the volume shop.db: it is protected", { hint: "set protect = false" });
        },
      },
      instances: {
        revision: () => needs.revision,
        list: () => instances,
        find,
        select: (name: string) => (name === "shop/" ? instances : [find(name)]),
        async run(request, call) {
          call.report({ topic: "pull nginx:1.27", state: "downloading", done: 1, total: 2, unit: "bytes" });
          return request.attach
            ? { instance: exampleInstance(), session: echoSession() }
            : { instance: exampleInstance() };
        },
        start: async (id) => byId(id),
        stop: async (id) => byId(id),
        restart: async (id) => byId(id),
        kill: async (id) => byId(id),
        pause: async (id) => byId(id),
        unpause: async (id) => byId(id),
        suspend: async (id) => byId(id),
        async remove(_, force) {
          if (!force) throw new Fault("precondition", "it is running", { hint: "say --force" });
        },
        exec: async () => echoSession(),
        attach: async () => echoSession(),
        async *logs() {
          yield { timeMs: thenMs, stream: "stdout", bytes: Buffer.from("Grüße"), partial: false };
          yield { timeMs: thenMs + 1, stream: "stderr", bytes: Buffer.from([0, 255, 10]), partial: true };
        },
        processes: async () => [
          { pid: 1, parentPid: 0, user: "root", cpuMs: 1.5, memoryBytes: 2 ** 20, startedMs: thenMs, command: "nginx" },
        ],
        stats: async () => ({
          timeMs: thenMs,
          cpuNs: 5n,
          memoryBytes: 9,
          pids: 2,
          readBytes: 1,
          writtenBytes: 2,
          receivedBytes: 3,
          sentBytes: 4,
          oomKills: 0,
        }),
      },
      machines: {
        async snapshot(_, { name }) {
          if (name === "taken") throw new Fault("conflict", "there is a snapshot taken of another kind");
          return snapshot;
        },
        snapshots: async () => [snapshot, { name: "plain", memory: false, createdMs: thenMs }],
        async revert(id, name) {
          if (name === "nosuch") throw missing("snapshot", name);
          return byId(id);
        },
        async removeSnapshot(_, name) {
          if (name === "nosuch") throw missing("snapshot", name);
        },
        console: async () => echoSession(),
        screenshot: async () => Buffer.from([0x89, 0x50, 0x4e, 0x47]),
        guest: async () => ({
          hostname: "files",
          system: "Debian GNU/Linux 12 (bookworm)",
          kernel: "6.1.0",
          addresses: [{ interface: "enp1s0", mac: "02:00:00:00:00:01", address: "10.0.0.2/24" }],
        }),
        async *export() {
          yield Buffer.from("first ");
          yield Buffer.alloc(100_000, 7);
        },
        async import(bytes, { name }) {
          if ((await collect(bytes)).length === 0) throw new Fault("corrupt", "the file is empty");
          return { ...exampleInstance(), name: name ?? "as-in-the-file" };
        },
        async clone(id, { name }) {
          if (name === "taken") throw new Fault("already-exists", "the name taken is taken");
          return { ...byId(id), name };
        },
      },
    },
    diskImages: {
      async import({ name, checksum, source }) {
        if (source.kind === "bytes") await collect(source.bytes);
        if (name === "nosuch") throw new Fault("corrupt", "the disk image is not what its checksum says");
        return checksum === undefined ? { ...diskImage, verified: "no" } : diskImage;
      },
      importNameless: async () => ({ ...diskImage, names: [] }),
      discard: async () => {},
      find: async (name) => (name === "nosuch" ? undefined : diskImage),
      get: async () => diskImage,
      list: async () => [diskImage],
      verify: async () => diskImage,
      remove: async () => {},
      collect: async () => ({ images: 1, freedBytes: 2 ** 32 }),
    },
    images: {
      find: async (name) => (name === "nginx:1.27" ? image : undefined),
      async get(asked) {
        if (asked !== digest) throw missing("image", asked);
        return image;
      },
      list: async () => [image],
      pull: async () => image,
      push: async () => digest,
      build: async () => image,
      async load(archive) {
        if ((await collect(archive)).length === 0) throw new Fault("corrupt", "the archive is empty");
        return [image];
      },
      async *save(references) {
        if (references.includes("nosuch")) throw missing("image", "nosuch");
        yield Buffer.from("first ");
        yield Buffer.alloc(100_000, 7);
      },
      tag: async () => {},
      remove: async () => {},
      collect: async () => ({ images: 2, freedBytes: 2 ** 33 }),
    },
    registries: {
      async login(_, { password }) {
        if (password !== "right") throw new Fault("unauthenticated", "the registry refuses this password");
      },
      async logout(registry) {
        if (registry === "nosuch") throw missing("login", registry);
      },
    },
    operations: {
      begin: async () => operation,
      async get(id) {
        if (id !== operation.id) throw missing("operation", id);
        return operation;
      },
      list: async () => [operation, finished],
      async *watch(id) {
        if (id !== operation.id) throw missing("operation", id);
        yield operation;
        yield finished;
      },
      async cancel(id) {
        if (id !== operation.id) throw missing("operation", id);
      },
      close: async () => {},
    },
    secrets: {
      put: async () => "v2",
      rotate: async () => "v3",
      current: async () => "v1",
      list: async () => [{ stack: "shop", name: "db-password", version: "v1", createdMs: thenMs, versions: 2 }],
      remove: async () => {},
    },
    files: {
      put: async (tar) => sha256(await collect(tar)),
      readFile: async () => Buffer.from("content"),
    },
    host: {
      info: async () => ({
        name: "box",
        version: "0.1.0",
        pid: 7,
        startedMs: thenMs,
        kernel: "6.1",
        cpus: 2,
        memoryBytes: 2 ** 34,
        libDir: "/lib",
        runDir: "/run",
        cgroups: "v2",
        engines: { container: "crun", microvm: "qemu-microvm" },
        diskFreeBytes: 2 ** 40,
      }),
      diagnose: async () => [{ topic: "engine crun", status: "failed", detail: "is not there", mend: "install it" }],
      pools: async () => [{ name: "overlay", path: "/lib/pool", sizeBytes: 9, freeBytes: 5, roots: 1, volumes: 1 }],
    },
    plans: { plan: () => "a plan\n", diff: (sections) => sections.map(({ subject }) => `${subject}\n`).join("") },
  };
  return needs;
}

const stackView = {
  name: "shop",
  origin: "file",
  status: "healthy",
  generation: 2,
  wanted: 1,
  running: 1,
  updatedMs: thenMs,
} as const;

const generationView = {
  number: 2,
  digest,
  createdMs: thenMs,
  status: "live",
  current: true,
  author: "anna",
  message: "",
  changes: ["container.web: image changed"],
} as const;

const networkView = {
  id: "shop.back" as NetworkId,
  stack: "shop",
  name: "back",
  subnet: "10.20.0.0/24",
  internal: true,
  members: [{ instance: "shop/web-1", address: "10.20.0.2" }],
};

const volumeView = {
  id: "shop.db" as VolumeId,
  stack: "shop",
  name: "db",
  usedBytes: 2 ** 40,
  protect: true,
  path: "/lib/volumes/shop.db",
  usedBy: ["shop/web-1"],
};

/** Says on stdout what it hears, and on stderr how it was resized or signalled; ends with 42 when its input ends. */
export function echoSession(): Session {
  const said: { stream: "stdout" | "stderr"; bytes: Uint8Array }[] = [];
  const news = new Wake();
  let ended = false;
  const say = (stream: "stdout" | "stderr", bytes: Uint8Array): void => {
    said.push({ stream, bytes });
    news.ring();
  };
  const end = (): void => {
    ended = true;
    news.ring();
  };
  async function* output() {
    for (;;) {
      const next = said.shift();
      if (next !== undefined) yield next;
      else if (ended) return;
      else await news.next();
    }
  }
  return {
    output: output(),
    write: async (bytes) => say("stdout", bytes),
    endInput: end,
    resize: async (columns, rows) => say("stderr", Buffer.from(`${columns}x${rows}`)),
    signal: async (signal) => say("stderr", Buffer.from(signal)),
    exited: Promise.resolve(42),
    close: async () => end(),
  };
}

const silentClock = {
  nowMs: () => thenMs,
  monotonicMs: () => 0,
  sleep: async () => {},
  after: () => () => {},
};

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunks));
}

/** A world in which everything fails in a way that nobody foresaw, with words that no client may read. */
export function brokenNeeds(): Needs {
  const broken: unknown = new Proxy(() => {}, {
    get: (_, name) => (name === "then" ? undefined : broken),
    apply: () => {
      throw new TypeError("cannot read /root/.secret of undefined");
    },
  });
  return broken as Needs;
}
