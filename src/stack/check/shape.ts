import { posix } from "node:path";
import { z } from "zod";
import { isFault } from "../../base/fault.ts";
import { parseDurationMs, parseSizeBytes } from "../../base/unit.ts";
import { instanceDefaults } from "../default.ts";
import type { imageFields, instanceFields, networkFields, secretFields, topFields, volumeFields } from "../field.ts";
import type { EnvValue, PublishSection, SecretSection } from "../model.ts";
import { imageNameProblem } from "./image-name.ts";
import { parseNetwork } from "./ipv4.ts";
import { parseHttp, parsePort, parsePublish } from "./port.ts";
import { suggest } from "./suggest.ts";

/**
 * The shape of every field, as zod schemas that also turn what is written into what is meant. What a message does not
 * say itself is filled in from the field's row in `field.ts`. A message's further lines are its hint.
 */

export type Shapes<Fields> = { readonly [Name in keyof Fields]: z.ZodType };

/** A complaint: what is wrong and, on further lines, what would be right. */
export interface Wrong {
  readonly wrong: string;
}

/**
 * A schema from a function that throws or returns a complaint. `meta` goes into the JSON Schema as it is. `noText`: what
 * is said of what is no string, where the usual words do not help.
 */
export function reading<Out>(read: (text: string) => Out, meta: Record<string, unknown>, noText?: string) {
  return z
    .string(noText)
    .transform((text, context): Exclude<Out, Wrong> => {
      const complain = (message: string): never => {
        context.issues.push({ code: "custom", message, input: text });
        return z.NEVER;
      };
      try {
        const out = read(text);
        return isWrong(out) ? complain(out.wrong) : (out as Exclude<Out, Wrong>);
      } catch (thrown) {
        if (!isFault(thrown, "invalid")) throw thrown;
        return complain(`${thrown.message}\n${thrown.hint ?? ""}`);
      }
    })
    .meta(meta);
}

function isWrong(value: unknown): value is Wrong {
  return typeof value === "object" && value !== null && "wrong" in value;
}

/** Text that cannot end a C string early or hide in a terminal. */
export const text = z.string().refine((value) => !value.includes("\0"), "must not hold a NUL character\nremove it");

export const flag = z.boolean();

export const size = reading(parseSizeBytes, { pattern: "^[0-9]+(\\.[0-9]+)? ?(B|[kK]B|[MGT]B|[KMGT]iB)$" });

const durationMeta = { pattern: "^[0-9]+(\\.[0-9]+)? ?(ms|s|m|h|d)$" };
const duration = reading((written) => {
  const durationMs = parseDurationMs(written);
  return durationMs > 86_400_000 ? { wrong: `"${written}" is more than a day\nwrite at most 24h` } : durationMs;
}, durationMeta);
const positiveDuration = reading((written) => {
  const durationMs = parseDurationMs(written);
  if (durationMs < 10) return { wrong: `"${written}" is too short\nwrite at least 10ms` };
  return durationMs > 86_400_000 ? { wrong: `"${written}" is more than a day\nwrite at most 24h` } : durationMs;
}, durationMeta);

export const absolutePath = reading(
  (written) => {
    if (!written.startsWith("/")) return { wrong: `"${written}" is not an absolute path\nbegin it with /` };
    if (written.includes("\0")) return { wrong: "a path must not hold a NUL character\nremove it" };
    if (written.split("/").includes("..")) return { wrong: `"${written}" climbs with ..\nwrite the path without ..` };
    const normal = posix.normalize(written);
    return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
  },
  { pattern: "^/" },
);

/** A path beside the stack file, without a leading `./`: the client sends what is there, so it may not lead elsewhere. */
export const besidePath = reading(
  (written) => {
    if (written === "" || written.includes("\0"))
      return { wrong: "a path must not be empty\nwrite one such as ./site.conf" };
    if (written.startsWith("/") || written.startsWith("~")) {
      return {
        wrong: `"${written}" is not beside the stack file\nwrite a path relative to the file, such as ./site.conf`,
      };
    }
    const normal = posix.normalize(written).replace(/\/$/, "");
    if (normal === ".." || normal.startsWith("../")) {
      return { wrong: `"${written}" leads out of the stack file's folder\nmove what it names beneath that folder` };
    }
    return normal;
  },
  { pattern: "^[^/~]" },
);

/** A list, or one string that is split at spaces. Quotes are refused there, since they would not mean what they seem to. */
const argv = z.union(
  [
    z.array(text),
    reading(
      (line): readonly string[] | Wrong =>
        /["'\\$`|&;<>*?]/.test(line)
          ? {
              wrong: `in one string, quotes and other shell characters have no meaning\nwrite a list: ["sh", "-c", "…"]`,
            }
          : line.split(" ").filter((word) => word !== ""),
      {},
    ),
  ],
  "a list of strings, or one string",
);

const envName = z
  .string()
  .regex(/^[^=\s\0]+$/, "a variable's name cannot be empty, nor hold a space or =\nwrite a name such as LOG_LEVEL");

const plainValue = z.union([text, z.number(), z.boolean()], "a string, a number or a boolean").transform(String);

const envValue = z.union(
  [
    plainValue.transform((value): EnvValue => ({ value })),
    z.strictObject({ secret: z.string() }).transform((value): EnvValue => value),
  ],
  "a string, a number, a boolean or { secret = name }",
);

const user = z
  .string()
  .regex(
    /^[^\s:]+(:[^\s:]+)?$/,
    "is not a user\nwrite a name or number, or both user and group: postgres, 1000, 1000:1000",
  );

const mode = reading(
  (written) => {
    if (!/^0?[0-7]{3}$/.test(written))
      return { wrong: `"${written}" is not a file mode\nwrite three octal digits: "0644"` };
    return Number.parseInt(written, 8);
  },
  { pattern: "^0?[0-7]{3}$" },
  // A number loses whether it was written in octal digits.
  'must be in quotes\nwrite three octal digits: "0644"',
);

const imageName = reading((written) => {
  const wrong = imageNameProblem(written);
  return wrong === undefined ? written : { wrong };
}, {});

const capability = reading(
  (written) => {
    const name = written.toUpperCase().replace(/^CAP_/, "");
    if (capabilities.has(name)) return name;
    const hint = suggest(name, [...capabilities], "");
    return {
      wrong: `"${written}" is not a capability of Linux\n${hint.startsWith("did") ? hint : "write one such as NET_ADMIN"}`,
    };
  },
  { pattern: "^[A-Za-z_]+$" },
);

/** capabilities(7), without `CAP_`, and `ALL`. */
const capabilities: ReadonlySet<string> = new Set(
  "ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM".split(
    " ",
  ),
);

/** signal(7), without `SIG`. */
const signals: ReadonlySet<string> = new Set(
  "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS".split(
    " ",
  ),
);

const stopSignal = reading(
  (written) => {
    const name = written.toUpperCase().replace(/^SIG/, "");
    const isRealTime = /^RTMIN(\+([1-9]|[12][0-9]|30))?$/.test(name) || name === "RTMAX";
    return signals.has(name) || isRealTime
      ? `SIG${name}`
      : { wrong: `"${written}" is not a signal\nwrite one such as SIGTERM, SIGINT or SIGQUIT` };
  },
  { pattern: "^(SIG)?[A-Z0-9+]+$" },
);

const hostname = z
  .string()
  .regex(
    /^(?=.{1,63}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/,
    "is not a host name\nuse letters, digits and -, with dots between the parts, at most 63 characters",
  );

const publish = reading((written): PublishSection | Wrong => parsePublish(written), {
  pattern: "^([0-9.]+:)?[0-9]+:[0-9]+(/(tcp|udp))?$",
});

const health = z
  .strictObject({
    http: reading(parseHttp, { pattern: "^:?[0-9]+(/.*)?$" }).optional(),
    tcp: z
      .union([z.number().transform(String), z.string()], "a port")
      .pipe(reading(parsePort, {}))
      .optional(),
    exec: argv.optional(),
    interval: positiveDuration.optional(),
    timeout: positiveDuration.optional(),
    retries: z.number().int().min(1).max(1000).optional(),
    "start-period": duration.optional(),
  })
  .superRefine((value, context) => {
    const given = [value.http, value.tcp, value.exec].filter((check) => check !== undefined).length;
    if (given !== 1) {
      const message =
        given === 0
          ? "a health check needs http, tcp or exec"
          : "a health check has one of http, tcp and exec, not several";
      context.addIssue({ code: "custom", message: `${message}\nfor example: { http = ":80/healthz" }` });
    }
    if (value.exec?.length === 0) {
      context.addIssue({
        code: "custom",
        path: ["exec"],
        message: 'the command is empty\nfor example: exec = ["pg_isready"]',
      });
    }
  });

const injected = z
  .strictObject({ path: besidePath.optional(), secret: z.string().optional(), mode: mode.optional() })
  .superRefine((value, context) => {
    if ((value.path === undefined) === (value.secret === undefined)) {
      context.addIssue({
        code: "custom",
        message: 'give one of path and secret\nfor example: { secret = "db-password" }',
      });
    }
  });

const list = z.array(z.string());

export const topShapes = {
  $schema: z.string(),
  stack: z.string(),
} as const satisfies Shapes<typeof topFields>;

export const networkShapes = {
  subnet: reading(
    (written): string | Wrong => {
      const network = parseNetwork(written);
      return "wrong" in network ? network : network.text;
    },
    { pattern: "^[0-9.]+/[0-9]+$" },
  ),
  internal: flag,
} as const satisfies Shapes<typeof networkFields>;

export const volumeShapes = {
  size: size.refine((bytes) => bytes >= 2 ** 20, "is too small for a volume\nwrite at least 1MiB"),
  protect: flag,
} as const satisfies Shapes<typeof volumeFields>;

export const secretShapes = {
  generate: z
    .strictObject({ length: z.number().int().min(8, "too short to be a secret\nwrite 8 to 1024").max(1024).optional() })
    .transform((value): SecretSection => ({ source: "generate", length: value.length ?? 32 })),
  file: besidePath.transform((path): SecretSection => ({ source: "file", path })),
  env: envName.transform((variable): SecretSection => ({ source: "env", variable })),
} as const satisfies Shapes<typeof secretFields>;

export const imageShapes = {
  from: imageName,
  packages: z.array(
    z
      .string()
      .regex(
        /^[a-z0-9][a-z0-9+.-]*(=[A-Za-z0-9.+:~-]+)?$/,
        "is not the name of a Debian package\nwrite names as apt knows them, such as nginx-light",
      ),
  ),
  files: z.record(absolutePath, besidePath),
  command: argv,
  entrypoint: argv,
  env: z.record(envName, plainValue),
  user,
  workdir: absolutePath,
} as const satisfies Shapes<typeof imageFields>;

export const instanceShapes = {
  image: imageName,
  command: argv,
  entrypoint: argv,
  env: z.record(envName, envValue),
  "env-file": z.union([z.array(besidePath), besidePath.transform((path) => [path])]),
  user,
  workdir: absolutePath,
  hostname,
  volumes: z.record(
    z.string(),
    z.union(
      [
        absolutePath.transform((path) => ({ path, readOnly: false })),
        z
          .strictObject({ path: absolutePath, "read-only": flag.optional() })
          .transform((value) => ({ path: value.path, readOnly: value["read-only"] ?? false })),
      ],
      "a path in the instance, or { path, read-only }",
    ),
  ),
  files: z.record(
    absolutePath,
    z.union(
      [besidePath.transform((path) => ({ path, secret: undefined, mode: undefined })), injected],
      "a path beside the stack file, { path, mode } or { secret, mode }",
    ),
  ),
  tmpfs: z.union([
    z.array(absolutePath).transform((paths) => paths.map((path) => ({ path, sizeBytes: undefined }))),
    z
      .record(absolutePath, size)
      .transform((sizes) => Object.entries(sizes).map(([path, sizeBytes]) => ({ path, sizeBytes }))),
  ]),
  networks: list,
  publish: z.array(publish),
  cpus: z.number().min(0.01, "is too little\nwrite at least 0.01").max(1024, "is too much\nwrite at most 1024"),
  memory: size.refine((bytes) => bytes >= 4 * 2 ** 20, "is too little for a process to start\nwrite at least 4MiB"),
  pids: z
    .number()
    .int("must be a whole number\nfor example: pids = 200")
    .min(1, `must be at least 1\nleave it out for ${instanceDefaults.pids}`)
    .max(4_194_304, "is more than a kernel has\nwrite at most 4194304"),
  restart: z.enum(["always", "on-failure", "never"]),
  health,
  needs: list,
  replicas: z
    .number()
    .int("must be a whole number\nfor example: replicas = 2")
    .min(0, "cannot be less than 0\nwrite 0 to 1000")
    .max(1000, "is more than one machine can keep\nwrite 0 to 1000"),
  "stop-signal": stopSignal,
  "stop-grace": duration,
  "read-only": flag,
  capabilities: z.strictObject({ add: z.array(capability).optional(), drop: z.array(capability).optional() }),
  labels: z.record(z.string().min(1, "a label needs a name\nremove it"), plainValue),
  protect: flag,
  log: z.strictObject({
    "max-size": size.refine((bytes) => bytes >= 65_536, "is too little\nwrite at least 64KiB").optional(),
  }),
  update: z.strictObject({
    order: z.enum(["start-first", "stop-first"]).optional(),
    "healthy-within": positiveDuration.optional(),
  }),
} as const satisfies Shapes<typeof instanceFields>;

/** What a section means, as far as it could be read: fields that are absent or wrong are missing. */
export type Readable<Shape extends Record<string, z.ZodType>> = {
  -readonly [Name in keyof Shape]?: z.output<Shape[Name]>;
};
export type NetworkInput = Readable<typeof networkShapes>;
export type VolumeInput = Readable<typeof volumeShapes>;
export type SecretInput = Readable<typeof secretShapes>;
export type ImageInput = Readable<typeof imageShapes>;
export type InstanceInput = Readable<typeof instanceShapes>;
