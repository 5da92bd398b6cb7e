import type { ImageSection, InstanceSection, NetworkSection, VolumeSection } from "./model.ts";

/**
 * Every field of the language, once: the JSON Schema takes its descriptions from here, the reference its tables, error
 * messages their examples, and the plan what a change costs. The compiler makes the checker's shapes complete against it.
 */
export interface Field {
  /** As a person writes it: a word or two of prose, `size`, `list of strings`. */
  readonly type: string;
  /** What is so when the field is absent; `required` when it must be there. */
  readonly default: string;
  /** One line of TOML that is right. */
  readonly example: string;
  /** Full sentences. */
  readonly doc: string;
}

/** Which member of the model the field ends in, and what changing it on a running instance costs. */
export interface InstanceField extends Field {
  readonly member: keyof InstanceSection;
  readonly change: FieldChange;
}

/**
 * `hot`: in place. `live`: in place where the guest and its engine can, as the engine tells; else by a restart. `restart`:
 * stopped, prepared anew and started again, with all it holds. `recreate`: replaced by another instance.
 */
export type FieldChange = "hot" | "live" | "restart" | "recreate";

export const topFields = {
  $schema: {
    type: "string",
    default: "none",
    example: '"$schema" = "croft.schema.json"',
    doc: "Where an editor finds the JSON Schema of this file. Croft itself does not read it.",
  },
  stack: {
    type: "name",
    default: "the name of the file's folder",
    example: 'stack = "shop"',
    doc: "What the stack is called. Everything of it on a host carries this name.",
  },
} as const satisfies Record<string, Field>;

export const networkFields = {
  subnet: {
    type: "IPv4 network",
    default: "one that is free is chosen, and kept",
    example: 'subnet = "10.20.0.0/24"',
    doc: "The addresses of the network, from /16 to /29. Changing it recreates the instances on the network.",
  },
  internal: {
    type: "boolean",
    default: "false",
    example: "internal = true",
    doc: "No way out: no address translation, no default route, no published ports.",
  },
} as const satisfies Record<keyof NetworkSection, Field>;

export const volumeFields = {
  size: {
    type: "size",
    default: "as large as the pool",
    example: 'size = "5GiB"',
    doc: "A quota, where the pool can keep one. It can grow in place; a smaller size is refused.",
  },
  protect: {
    type: "boolean",
    default: "false",
    example: "protect = true",
    doc: "A plan that would destroy the volume is refused until this is turned off and applied.",
  },
} as const satisfies Record<"size" | Exclude<keyof VolumeSection, "sizeBytes">, Field>;

export const secretFields = {
  generate: {
    type: "table with `length`",
    default: "one of generate, file, env is required",
    example: "generate = { length = 32 }",
    doc: "Croft makes it up once, of letters and digits, and keeps it. `length` is from 8 to 1024; 32 when left out.",
  },
  file: {
    type: "path beside the stack file",
    default: "one of generate, file, env is required",
    example: 'file = "./db-password.txt"',
    doc: "The value is the content of this file, sent by whoever runs `croft up`.",
  },
  env: {
    type: "variable name",
    default: "one of generate, file, env is required",
    example: 'env = "DB_PASSWORD"',
    doc: "The value is this variable of the environment of whoever runs `croft up`.",
  },
} as const satisfies Record<string, Field>;

export const imageFields = {
  from: {
    type: "image",
    default: "required",
    example: 'from = "debian:bookworm"',
    doc: "What it is built upon: `scratch`, a Debian suite such as `debian:bookworm`, another image of this file, or a registry reference.",
  },
  packages: {
    type: "list of package names",
    default: "none",
    example: 'packages = ["nginx-light"]',
    doc: "Debian packages to install, with what they depend on. Upon `scratch` it is these packages' own files, and nothing else.",
  },
  files: {
    type: "table: destination = path beside the stack file",
    default: "none",
    example: 'files = { "/usr/share/nginx/html" = "./site" }',
    doc: "Files and directories to copy in.",
  },
  command: {
    type: "list of strings, or one string",
    default: "that of the image it is built upon",
    example: 'command = ["nginx", "-g", "daemon off;"]',
    doc: "What an instance runs when it does not say otherwise. One string is split at spaces; nothing else in it is special.",
  },
  entrypoint: {
    type: "list of strings, or one string",
    default: "that of the image it is built upon",
    example: 'entrypoint = ["/docker-entrypoint.sh"]',
    doc: "Comes before the command.",
  },
  env: {
    type: "table: variable = string, number or boolean",
    default: "none",
    example: 'env = { LANG = "C.UTF-8" }',
    doc: "Variables that every instance of the image gets.",
  },
  user: {
    type: "user or user:group",
    default: "that of the image it is built upon",
    example: 'user = "nginx"',
    doc: "Who the main process runs as, by name or number.",
  },
  workdir: {
    type: "absolute path",
    default: "that of the image it is built upon",
    example: 'workdir = "/srv"',
    doc: "Where the main process starts.",
  },
} as const satisfies Record<keyof ImageSection, Field>;

export const instanceFields = {
  image: {
    type: "image",
    default: "required",
    example: 'image = "nginx:1.27"',
    doc: "The name of an `[image.x]` of this file, or a registry reference.",
    member: "image",
    change: "recreate",
  },
  command: {
    type: "list of strings, or one string",
    default: "the image's",
    example: 'command = ["redis-server", "--save", ""]',
    doc: "What it runs. One string is split at spaces; nothing else in it is special.",
    member: "command",
    change: "recreate",
  },
  entrypoint: {
    type: "list of strings, or one string",
    default: "the image's",
    example: 'entrypoint = ["/docker-entrypoint.sh"]',
    doc: "Comes before the command. When it is given and the command is not, the image's command is not used either.",
    member: "entrypoint",
    change: "recreate",
  },
  env: {
    type: "table: variable = string, number, boolean or { secret = name }",
    default: "none",
    example: 'env = { POSTGRES_DB = "shop", POSTGRES_PASSWORD = { secret = "db-password" } }',
    doc: "Variables of the main process, beside the image's own.",
    member: "env",
    change: "recreate",
  },
  "env-file": {
    type: "path, or list of paths, beside the stack file",
    default: "none",
    example: 'env-file = "./shop.env"',
    doc: "Lines of `NAME=value`; empty lines and lines that begin with `#` are skipped, and one pair of quotes around a value is taken off. Nothing is expanded. Later files win, and `env` wins over all of them.",
    member: "env",
    change: "recreate",
  },
  user: {
    type: "user or user:group",
    default: "the image's",
    example: 'user = "1000:1000"',
    doc: "Who the main process runs as, by name or number, looked up in the image.",
    member: "user",
    change: "recreate",
  },
  workdir: {
    type: "absolute path",
    default: "the image's",
    example: 'workdir = "/srv"',
    doc: "Where the main process starts.",
    member: "workdir",
    change: "recreate",
  },
  hostname: {
    type: "host name",
    default: "the instance's own name, `web-1`",
    example: 'hostname = "mail"',
    doc: "What the instance believes it is called. Others find it by the names of the section and the instance.",
    member: "hostname",
    change: "recreate",
  },
  volumes: {
    type: "table: volume = path, or { path, read-only }",
    default: "none",
    example: 'volumes = { db = "/var/lib/postgresql/data", "./conf" = { path = "/conf", read-only = true } }',
    doc: "Where volumes of this file are mounted. A key that begins with `/` or `./` is a bind: that directory or file of the host itself.",
    member: "mounts",
    change: "recreate",
  },
  files: {
    type: "table: destination = path beside the stack file, or { path, mode } or { secret, mode }",
    default: "none",
    example: 'files = { "/etc/site/site.conf" = "./site.conf", "/run/secrets/db" = { secret = "db-password" } }',
    doc: "Files put into the instance. Their content is pinned when the file is applied. A secret is readable for its owner only, unless `mode` says otherwise; it stays in memory.",
    member: "mounts",
    change: "recreate",
  },
  tmpfs: {
    type: "list of paths, or table: path = size",
    default: "none",
    example: 'tmpfs = { "/tmp" = "64MiB" }',
    doc: "Empty directories in memory, gone with the instance.",
    member: "mounts",
    change: "recreate",
  },
  networks: {
    type: "list of network names",
    default: '["default"], the stack\'s own network',
    example: 'networks = ["back", "default"]',
    doc: "Which networks it joins. The first that is not internal carries its way out.",
    member: "networks",
    change: "recreate",
  },
  publish: {
    type: "list of ports",
    default: "none",
    example: 'publish = ["8080:80", "127.0.0.1:8443:443", "53:53/udp"]',
    doc: "Ports of the host that lead to it: `host:instance`. Replicas share the connections.",
    member: "publish",
    change: "hot",
  },
  cpus: {
    type: "number",
    default: "no limit",
    example: "cpus = 1.5",
    doc: "How much processor time it may use, in cores, from 0.01 to 1024.",
    member: "cpus",
    change: "hot",
  },
  memory: {
    type: "size",
    default: "no limit",
    example: 'memory = "512MiB"',
    doc: "How much memory it may use, at least 4 MiB. Beyond that the kernel kills it.",
    member: "memoryBytes",
    change: "hot",
  },
  pids: {
    type: "whole number",
    default: "4096",
    example: "pids = 200",
    doc: "How many processes and threads it may have.",
    member: "pids",
    change: "hot",
  },
  restart: {
    type: "`always`, `on-failure` or `never`",
    default: '"always"',
    example: 'restart = "on-failure"',
    doc: "Whether it is started again when it ends or its health check fails, with growing pauses.",
    member: "restart",
    change: "hot",
  },
  health: {
    type: "table with `http`, `tcp` or `exec`, and `interval`, `timeout`, `retries`, `start-period`",
    default: "none: healthy while it runs",
    example: 'health = { http = ":80/healthz", interval = "5s", retries = 3 }',
    doc: "How to see that it works. `http` expects a status from 200 to 399, `tcp` an open port, `exec` the exit code 0. `interval` is 5s when left out, `timeout` 3s, `retries` 3, `start-period` 0s.",
    member: "health",
    change: "hot",
  },
  needs: {
    type: "list of section names",
    default: "none",
    example: 'needs = ["db"]',
    doc: "It is started when every replica of these is healthy, and stopped before them.",
    member: "needs",
    change: "hot",
  },
  replicas: {
    type: "whole number",
    default: "1",
    example: "replicas = 2",
    doc: "How many of it there are, from 0 to 1000. Fewer removes those with the highest numbers.",
    member: "replicas",
    change: "hot",
  },
  "stop-signal": {
    type: "signal name",
    default: "the image's, else SIGTERM",
    example: 'stop-signal = "SIGQUIT"',
    doc: "How it is asked to end.",
    member: "stopSignal",
    change: "hot",
  },
  "stop-grace": {
    type: "duration",
    default: '"10s"',
    example: 'stop-grace = "30s"',
    doc: "How long it may take to end before it is killed.",
    member: "stopGraceMs",
    change: "hot",
  },
  "read-only": {
    type: "boolean",
    default: "false",
    example: "read-only = true",
    doc: "Nothing can be written in its root; volumes and tmpfs still can.",
    member: "readOnly",
    change: "recreate",
  },
  capabilities: {
    type: "table with `add` and `drop`",
    default: "the usual reduced set",
    example: 'capabilities = { add = ["NET_ADMIN"], drop = ["ALL"] }',
    doc: 'Linux capabilities given beyond the usual set, and taken from it. `drop = ["ALL"]` leaves only those of `add`.',
    member: "capabilities",
    change: "recreate",
  },
  labels: {
    type: "table: name = string",
    default: "none",
    example: 'labels = { team = "web" }',
    doc: "Words of yours, shown by `croft inspect` and usable as a filter.",
    member: "labels",
    change: "hot",
  },
  protect: {
    type: "boolean",
    default: "false",
    example: "protect = true",
    doc: "A plan that would remove it for good is refused until this is turned off and applied. It may still be recreated by a change, as its volumes stay.",
    member: "protect",
    change: "hot",
  },
  log: {
    type: "table with `max-size`",
    default: '{ max-size = "16MiB" }',
    example: 'log = { max-size = "64MiB" }',
    doc: "How much of its output is kept.",
    member: "log",
    change: "recreate",
  },
  update: {
    type: "table with `order` and `healthy-within`",
    default: '{ order = "stop-first", healthy-within = "60s" }',
    example: 'update = { order = "start-first", healthy-within = "30s" }',
    doc: "How a change replaces it, one replica at a time. `stop-first` never has two at once; `start-first` keeps the old one until the new one is healthy. When the new one is not healthy in time, the stack goes back.",
    member: "update",
    change: "hot",
  },
} as const satisfies Record<string, InstanceField>;
