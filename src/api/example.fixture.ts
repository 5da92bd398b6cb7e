import type { Reason } from "../base/fault.ts";

/** One conversation with a method: what is said, in JSON, and how it ends. */
export interface Example {
  readonly say: readonly object[];
  /** The reason of the Fault it ends with; absent: it goes well. */
  readonly fault?: Reason;
}

const ok = (...say: object[]): Example => ({ say });
const refused = (fault: Reason, ...say: object[]): Example => ({ say, fault });
const bytes = (text: string): string => Buffer.from(text).toString("base64");

const source = {
  path: "croft.toml",
  text: '[container.web]\nimage = "nginx:1.27"\nfiles = { "/etc/a" = "./a.conf" }\n',
  folder: "/srv/shop",
  files: { "a.conf": `sha256:${"a".repeat(64)}` },
};
const wrong = { path: "croft.toml", text: '[container.web]\nimages = "nginx"\n', folder: "/srv/shop" };

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHk anna@box";
const instance = { instance: "web-1" };
const nobody = { instance: "nosuch" };
const start = { start: { instance: "web-1", command: ["cat"], interactive: true } };
const typed = [
  { input: { data: bytes("Grüße") } },
  { input: { resize: { columns: 80, rows: 24 } } },
  { input: { signal: "SIGINT" } },
];

/**
 * By method, at least one conversation that goes well and, where it can be refused, one that is. The contract test fails
 * for a method that has no row here.
 */
export const examples: Readonly<Record<string, readonly Example[]>> = {
  WatchEvents: [
    ok({ after: 0, noFollow: true, kinds: ["instance."] }),
    refused("invalid", { after: 99, noFollow: true }),
  ],
  GetHost: [ok({})],
  DiagnoseHost: [ok({})],

  ListImages: [ok({})],
  GetImage: [ok({ image: "nginx:1.27" }), refused("not-found", { image: "localhost:5000/a/nosuch:tag" })],
  PullImage: [ok({ reference: "nginx:1.27", platform: "linux/arm64" }), refused("invalid", {})],
  PushImage: [ok({ reference: "nginx:1.27" }), refused("invalid", {})],
  BuildImages: [ok({ source, images: ["site"] }), refused("invalid", { source: wrong })],
  LoadImages: [ok({ chunk: bytes("one ") }, { chunk: bytes("two") }), refused("corrupt")],
  SaveImages: [
    ok({ references: ["nginx:1.27", "other"], format: "docker" }),
    refused("invalid", { references: ["a"], format: "zip" }),
    refused("not-found", { references: ["nosuch"] }),
  ],
  TagImage: [ok({ image: "nginx:1.27", reference: "nginx:1.27" }), refused("invalid", { image: "nginx:1.27" })],
  RemoveImage: [ok({ image: "nginx:1.27", force: true }), refused("precondition", { image: "nginx:1.27" })],
  CollectImages: [ok({})],
  LoginRegistry: [
    ok({ registry: "registry.example:5000", username: "a", password: "right" }),
    refused("unauthenticated", { registry: "registry.example", username: "a", password: "wrong" }),
  ],
  LogoutRegistry: [ok({ registry: "registry.example" }), refused("not-found", { registry: "nosuch" })],

  ListInstances: [ok({}), ok({ stack: "other", all: true })],
  GetInstance: [ok(instance), ok({ instance: "shop/web-1" }), refused("not-found", nobody)],
  RunInstance: [
    ok({ start: { image: "nginx:1.27", interactive: true, terminal: { columns: 80, rows: 24 } } }, ...typed),
    ok({ start: { image: "nginx:1.27", detach: true, volumes: ["data:/data", "/srv:/srv:ro"], memory: "64MiB" } }),
    refused("invalid", { start: { image: "nginx:1.27", publish: ["80"] } }),
    ok({ start: { image: "nginx:1.27", as: "microvm", memory: "128MiB", detach: true } }),
    ok(
      { start: { image: "debian-12.qcow2", as: "vm", diskSize: "20GiB", firmware: "uefi", sshKeys: [key] } },
      ...typed,
    ),
    refused("invalid", { start: { image: "debian-12.qcow2", as: "vm", command: ["true"] } }),
    refused("invalid", { start: { image: "debian-12.qcow2", as: "vm", memory: "8MiB" } }),
    refused("invalid", { start: { image: "nginx:1.27", firmware: "uefi" } }),
    refused("unsupported", { start: { image: "nginx:1.27", as: "system" } }),
  ],
  ExecInstance: [
    ok(start, ...typed),
    refused("not-found", { start: { instance: "nosuch", command: ["true"] } }),
    refused("invalid", { start: { instance: "web-1" } }),
    refused("invalid", { input: { end: true } }),
    refused("invalid"),
  ],
  AttachInstance: [ok({ start: instance }, ...typed), refused("not-found", { start: nobody })],
  StartInstance: [ok(instance), refused("not-found", nobody)],
  StopInstance: [ok({ ...instance, grace: "5s" }), refused("invalid", { ...instance, grace: "soon" })],
  RestartInstance: [ok(instance), refused("not-found", nobody)],
  KillInstance: [ok({ ...instance, signal: "SIGHUP" }), refused("not-found", nobody)],
  PauseInstance: [ok(instance), refused("not-found", nobody)],
  UnpauseInstance: [ok(instance), refused("not-found", nobody)],
  SuspendInstance: [ok(instance), refused("not-found", nobody)],
  RemoveInstance: [ok({ ...instance, force: true }), refused("precondition", instance)],
  StreamLogs: [
    ok({ instance: "shop/", since: "2026-01-01T00:00:00Z", tail: 10 }),
    ok({ instance: "web-1", follow: true }),
    refused("not-found", nobody),
  ],
  ListProcesses: [ok(instance), refused("not-found", nobody)],
  StreamStats: [
    ok({ instances: ["web-1", "shop/web-1"], once: true }),
    refused("not-found", { instances: ["nosuch"] }),
  ],

  ListDiskImages: [ok({})],
  ImportDiskImage: [
    ok({ url: "https://example.org/debian.qcow2", checksumListUrl: "https://example.org/SHA512SUMS", replace: true }),
    ok({ path: "/srv/debian.iso", name: "debian.iso", allowUnverified: true }),
    refused("invalid", { path: "debian.iso" }),
    refused("invalid", { url: "https://example.org/debian.qcow2", signatureUrl: "https://example.org/SIGN" }),
    refused("invalid", {}),
  ],
  UploadDiskImage: [
    ok(
      { filename: "debian.qcow2", checksum: `sha256:${"a".repeat(64)}` },
      { chunk: bytes("one ") },
      { chunk: bytes("two") },
    ),
    refused("corrupt", { filename: "debian.qcow2", name: "nosuch", allowUnverified: true }, { chunk: bytes("one") }),
    refused("invalid", { chunk: bytes("one") }),
  ],
  VerifyDiskImage: [ok({ name: "debian-12.qcow2" })],
  RemoveDiskImage: [refused("precondition", { name: "debian-12.qcow2" }), refused("not-found", { name: "nosuch" })],

  CreateSnapshot: [
    ok({ machine: "web-1", name: "before", memory: true }),
    refused("conflict", { machine: "web-1", name: "taken" }),
    refused("invalid", { machine: "web-1" }),
  ],
  ListSnapshots: [ok({ machine: "web-1" }), refused("not-found", { machine: "nosuch" })],
  RevertSnapshot: [
    ok({ machine: "web-1", snapshot: "before" }),
    refused("not-found", { machine: "web-1", snapshot: "nosuch" }),
  ],
  RemoveSnapshot: [
    ok({ machine: "web-1", snapshot: "before" }),
    refused("not-found", { machine: "web-1", snapshot: "nosuch" }),
  ],
  OpenConsole: [ok({ start: { machine: "web-1" } }, ...typed), refused("not-found", { start: { machine: "nosuch" } })],
  GetGuest: [ok({ machine: "web-1" }), refused("not-found", { machine: "nosuch" })],
  TakeScreenshot: [ok({ machine: "web-1" }), refused("not-found", { machine: "nosuch" })],
  ExportMachine: [ok({ machine: "web-1" }), refused("not-found", { machine: "nosuch" })],
  ImportMachine: [ok({ name: "files" }, { chunk: bytes("one ") }, { chunk: bytes("two") }), refused("corrupt")],
  CloneMachine: [
    ok({ machine: "web-1", name: "copy" }),
    refused("already-exists", { machine: "web-1", name: "taken" }),
    refused("invalid", { machine: "web-1" }),
  ],

  ListNetworks: [ok({}), ok({ stack: "other" })],
  GetNetwork: [ok({ network: "back" }), refused("not-found", { network: "nosuch" })],
  ListOperations: [ok({})],
  GetOperation: [ok({ id: "op-1" }), refused("not-found", { id: "nosuch" })],
  WatchOperation: [ok({ id: "op-1" }), refused("not-found", { id: "nosuch" })],
  CancelOperation: [ok({ id: "op-1" }), refused("not-found", { id: "nosuch" })],
  ListPools: [ok({})],

  ListSecrets: [ok({}), ok({ stack: "shop" })],
  SetSecret: [
    ok({ stack: "shop", name: "db-password", value: bytes("x") }),
    refused("not-found", { stack: "shop", name: "nosuch", value: bytes("x") }),
  ],
  RotateSecret: [ok({ stack: "shop", name: "db-password", length: 16 })],
  RemoveSecret: [ok({ stack: "shop", name: "db-password" }), refused("not-found", { stack: "shop", name: "nosuch" })],

  CheckStack: [ok({ source }), ok({ source: wrong, color: true }), refused("invalid", {})],
  PlanStack: [ok({ source, pruneVolumes: true }), refused("invalid", { source: { ...source, files: {} } })],
  ApplyStack: [ok({ source, baseGeneration: 0, message: "first" }), refused("invalid", { source: wrong })],
  RemoveStack: [ok({ stack: "shop", volumes: true }), refused("not-found", { stack: "nosuch" })],
  RollbackStack: [ok({ stack: "shop", generation: 1 }), refused("not-found", { stack: "nosuch" })],
  ListStacks: [ok({})],
  GetStack: [ok({ stack: "shop" }), refused("not-found", { stack: "nosuch" })],
  ListGenerations: [ok({ stack: "shop" }), refused("not-found", { stack: "nosuch" })],
  DiffGenerations: [ok({ stack: "shop", from: 1, to: 2 }), refused("not-found", { stack: "nosuch" })],
  UploadFiles: [ok({ chunk: bytes("one ") }, { chunk: bytes("two") }), ok()],

  ListVolumes: [ok({}), ok({ stack: "other" })],
  GetVolume: [ok({ volume: "shop/db" }), refused("not-found", { volume: "nosuch" })],
  RemoveVolume: [refused("protected", { volume: "db" }), refused("not-found", { volume: "nosuch" })],
};
