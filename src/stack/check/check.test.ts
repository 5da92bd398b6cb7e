import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Fault } from "../../base/fault.ts";
import { imageFields, instanceFields, networkFields, secretFields, topFields, volumeFields } from "../field.ts";
import { checkStack } from "./check.ts";
import type { Checked } from "./check.ts";
import { formatProblems } from "./problem.ts";

function check(text: string, files?: ReadonlyMap<string, Uint8Array>): Checked {
  return checkStack({
    path: "croft.toml",
    text,
    folder: "/srv/shop",
    format: "toml",
    ...(files === undefined ? {} : { files }),
  });
}

/** `line:column key: message | hint`, with the severity first when it is a warning. */
function told(text: string, files?: ReadonlyMap<string, Uint8Array>): string[] {
  return check(text, files).problems.map(({ severity, line, column, key, message, hint }) => {
    return `${severity === "warning" ? "warning " : ""}${line}:${column} ${key}: ${message} | ${hint}`;
  });
}

/** A container with these lines, beside sections with every name that examples use. */
function container(...lines: readonly string[]): string {
  return ["[container.web]", 'image = "nginx:1.27"', ...lines].join("\n");
}

/** What is written, and all that is said about it. */
const golden: readonly (readonly [string, readonly string[]])[] = [
  ["[container.web]", ['1:12 container.web: web has no image | add image = "nginx:1.27"']],
  [
    "container = 3",
    ["1:13 container: container must be tables with a name, not the number 3 | write each as [container.name]"],
  ],
  ["container.web = 3", ["1:17 container.web: web must be a table, not the number 3 | write it as [container.web]"]],
  ["[contaner.web]", ["1:2 contaner: there are no [contaner.x] sections | did you mean [container.x]?"]],
  ["[services.web]", ["1:2 services: there are no [services.x] sections | did you mean [container.x]?"]],
  ["stak = 'shop'", ['1:1 stak: there is no field "stak" at the top of a stack file | did you mean "stack"?']],
  [
    "[microvm.a]\n[vm.b]\n[system.c]",
    [
      '1:10 microvm.a: a has no image | add image = "nginx:1.27"',
      '2:5 vm.b: b has no disk | add disk = { image = "debian-12-cloud.qcow2", size = "20GiB" }',
      "3:9 system.c: [system.x] arrives in a later release | use [container.c] today",
    ],
  ],
  [
    "[container.'My Web']\nimage = 'x'",
    [
      '1:12 container."My Web": "My Web" cannot be the name of a container | use lower-case letters, digits and -, at most 40, with no - at either end: "my-web"',
    ],
  ],
  [
    "[container.localhost]\nimage = 'x'",
    [
      '1:12 container.localhost: a container cannot be called "localhost": inside every instance it means the instance itself | choose another name',
    ],
  ],
  [
    container("read_only = true"),
    ['3:1 container.web.read_only: there is no field "read_only" here | did you mean "read-only"?'],
  ],
  [
    container("memory = 512"),
    ['3:10 container.web.memory: memory must be a size, not the number 512 | for example: memory = "512MiB"'],
  ],
  [
    container("memory = '512'"),
    ['3:10 container.web.memory: "512" is not a size | write a number and a unit, such as 512MiB, 5GiB or 1.5GB'],
  ],
  [
    container("memory = '1MiB'"),
    ["3:10 container.web.memory: memory is too little for a process to start | write at least 4MiB"],
  ],
  [container("cpus = 0"), ["3:8 container.web.cpus: cpus is too little | write at least 0.01"]],
  [
    container("cpus = 'two'"),
    ['3:8 container.web.cpus: cpus must be a number, not the string "two" | for example: cpus = 1.5'],
  ],
  [
    container("replicas = 1001"),
    ["3:12 container.web.replicas: replicas is more than one machine can keep | write 0 to 1000"],
  ],
  [
    container("restart = 'alway'"),
    [
      '3:11 container.web.restart: restart cannot be "alway" | did you mean "always"? It can be "always", "on-failure", "never"',
    ],
  ],
  [
    container("networks = ['back']"),
    ['3:13 container.web.networks[1]: there is no network "back" | declare it as [network.back]'],
  ],
  [
    `[network.back]\n${container("networks = ['bakc']")}`,
    [
      '4:13 container.web.networks[1]: there is no network "bakc" | did you mean "back"? If not, declare it as [network.bakc]',
    ],
  ],
  [
    container("networks = ['host']"),
    [
      '3:13 container.web.networks[1]: there is no network "host" | Croft does not lend the host\'s network; publish ports instead',
    ],
  ],
  [
    container("volumes = { db = '/data' }"),
    [
      '3:13 container.web.volumes.db: there is no volume "db" | declare it as [volume.db]; a directory of the host begins with / or ./',
    ],
  ],
  [container("pids = 0"), ["3:8 container.web.pids: pids must be at least 1 | leave it out for 4096"]],
  [
    container("volumes = { './x' = 'data' }"),
    ['3:21 container.web.volumes."./x": "data" is not an absolute path | begin it with /'],
  ],
  [
    container("volumes = { './x' = { path = '/x', readonly = true } }"),
    ['3:36 container.web.volumes."./x".readonly: there is no "readonly" in ./x | did you mean "read-only"?'],
  ],
  [
    container("volumes = { './x' = '/proc/x' }"),
    [
      '3:21 container.web.volumes."./x": nothing can be mounted at /proc/x: the kernel\'s own files are there | choose another place',
    ],
  ],
  [
    container("volumes = { './x' = '/x:ro' }"),
    ['3:21 container.web.volumes."./x": :ro would be a part of the path | write { path = "/x", read-only = true }'],
  ],
  [
    container("volumes = { '/' = '/host' }"),
    [
      'warning 3:13 container.web.volumes."/": this lets the instance change / of the host | mount only what it needs, or add read-only = true',
    ],
  ],
  [
    container("volumes = { './x' = '/x' }", "tmpfs = ['/x']"),
    ["4:10 container.web.tmpfs[1]: /x is in volumes and tmpfs | mount each at a place of its own"],
  ],
  [
    container("files = { '/x' = '../x' }"),
    [
      '3:18 container.web.files."/x": "../x" leads out of the stack file\'s folder | move what it names beneath that folder',
    ],
  ],
  [
    container("files = { '/x' = '/etc/passwd' }"),
    [
      '3:18 container.web.files."/x": "/etc/passwd" is not beside the stack file | write a path relative to the file, such as ./site.conf',
    ],
  ],
  [
    container("files = { '/x' = { secret = 's' } }"),
    [
      '3:29 container.web.files."/x".secret: there is no secret "s" | declare it: [secret.s] with generate = { length = 32 }',
    ],
  ],
  [
    container("files = { '/x' = { path = 'x', mode = '888' } }"),
    ['3:39 container.web.files."/x".mode: "888" is not a file mode | write three octal digits: "0644"'],
  ],
  [
    container("files = { '/x' = { path = 'x', mode = 0o440 } }"),
    ['3:39 container.web.files."/x".mode: mode must be in quotes | write three octal digits: "0644"'],
  ],
  [
    container("files = { '/x' = { } }"),
    ['3:18 container.web.files."/x": give one of path and secret | for example: { secret = "db-password" }'],
  ],
  [
    container("env = { A = { secrt = 's' } }"),
    [
      '3:13 container.web.env.A: A has no secret | for example: env = { POSTGRES_DB = "shop", POSTGRES_PASSWORD = { secret = "db-password" } }',
      '3:15 container.web.env.A.secrt: there is no "secrt" in A | did you mean "secret"?',
    ],
  ],
  [
    container("env = { A = [1] }"),
    [
      '3:13 container.web.env.A: A must be a string, a number, a boolean or { secret = name }, not a list | for example: env = { POSTGRES_DB = "shop", POSTGRES_PASSWORD = { secret = "db-password" } }',
    ],
  ],
  [
    container("publish = ['80']"),
    ['3:12 container.web.publish[1]: "80" names one port only | write the host\'s port and the instance\'s: "80:80"'],
  ],
  [
    container("publish = [8080]"),
    [
      '3:12 container.web.publish[1]: publish entry 1 must be a string, not the number 8080 | for example: publish = ["8080:80", "127.0.0.1:8443:443", "53:53/udp"]',
    ],
  ],
  [
    container("publish = ['8080:80', '127.0.0.1:8080:81']"),
    [
      "3:23 container.web.publish[2]: port 8080/tcp of the host is already published by an entry before this one | choose another port of the host",
    ],
  ],
  [
    `${container("publish = ['8080:80']")}\n[container.api]\nimage = 'x'\npublish = ['8080:1']`,
    [
      '6:12 container.api.publish[1]: port 8080/tcp of the host is already published by container "web" | choose another port of the host',
    ],
  ],
  [
    container("publish = ['[::1]:80:80']"),
    [
      '3:12 container.web.publish[1]: "[::1]:80:80" is not a published port | write "8080:80" or "127.0.0.1:8080:80"; IPv6 addresses of the host are not supported yet',
    ],
  ],
  [
    container("networks = []", "publish = ['1:1']"),
    [
      '4:11 container.web.publish: an instance without networks cannot publish ports | give it a network: networks = ["default"]',
    ],
  ],
  [
    container("networks = []", "health = { tcp = 80 }"),
    [
      "4:10 container.web.health: a tcp check cannot reach an instance without networks | give it a network, or check with exec",
    ],
  ],
  [
    `[network.b]\ninternal = true\n${container("networks = ['b']", "publish = ['1:1']")}`,
    [
      '6:11 container.web.publish: all networks of this instance are internal, so its ports cannot be reached from outside | add a network that is not: networks = ["b", "default"]',
    ],
  ],
  [
    container("health = {}"),
    ['3:10 container.web.health: a health check needs http, tcp or exec | for example: { http = ":80/healthz" }'],
  ],
  [
    container("health = { http = '/x' }"),
    [
      '3:19 container.web.health.http: "/x" is not a port and path | write the instance\'s port and the path: ":80/healthz"',
    ],
  ],
  [
    container("command = \"sh -c 'x'\""),
    [
      '3:11 container.web.command: in one string, quotes and other shell characters have no meaning | write a list: ["sh", "-c", "…"]',
    ],
  ],
  [
    container("capabilities = { add = ['NET_ADMN'] }"),
    ['3:25 container.web.capabilities.add[1]: "NET_ADMN" is not a capability of Linux | did you mean "NET_ADMIN"?'],
  ],
  [
    container("capabilities = { add = ['SYS_ADMIN'] }"),
    [
      "warning 3:25 container.web.capabilities.add[1]: SYS_ADMIN is nearly as much as being root on the host | add only what the program needs, such as NET_ADMIN",
    ],
  ],
  [
    container("stop-signal = 'SIGFOO'"),
    ['3:15 container.web.stop-signal: "SIGFOO" is not a signal | write one such as SIGTERM, SIGINT or SIGQUIT'],
  ],
  [
    container("needs = ['wbe']"),
    ['3:10 container.web.needs[1]: there is no instance "wbe" | declare it as [container.wbe], or take it out'],
  ],
  [
    container("needs = ['web']"),
    [
      "3:9 container.web.needs: these need each other, so none could start first: web → web | take one of these out of needs; a program can also wait for another by itself",
    ],
  ],
  [
    "[container.a]\nimage='x'\nneeds=['b']\n[container.b]\nimage='x'\nneeds=['c']\n[container.c]\nimage='x'\nneeds=['a']",
    [
      "3:7 container.a.needs: these need each other, so none could start first: a → b → c → a | take one of these out of needs; a program can also wait for another by itself",
    ],
  ],
  [
    `${container("replicas = 2")}\n[container.web-2]\nimage = 'x'`,
    ['4:12 container.web-2: "web-2" is already the name of a replica of "web" | choose another name'],
  ],
  [
    `[volume.v]\n${container("replicas = 2", "volumes = { v = '/v' }")}`,
    [
      'warning 5:13 container.web.volumes.v: all 2 replicas write the volume "v" | make sure that the program can share it, or use one replica',
    ],
  ],
  ["[container.web]\nimage = 'Nginx'", ['2:9 container.web.image: "Nginx" has capital letters | write "nginx"']],
  [
    "[container.web]\nimage = 'https://x/y'",
    ['2:9 container.web.image: "https://x/y" is an address, not an image | leave out https://'],
  ],
  [
    "[container.web]\nimage = 'x@sha256:12'",
    ['2:9 container.web.image: "sha256:12" is not a digest | write sha256: and 64 hexadecimal digits'],
  ],
  [
    "[image.site]\nfrom = 'scratch'\n[container.web]\nimage = 'sit'",
    [
      'warning 1:8 image.site: nothing uses the image "site" | remove it, or name it where it is needed',
      'warning 4:9 container.web.image: "sit" is not an image of this file, so it would be pulled | did you mean "site"?',
    ],
  ],
  [
    "[image.a]\nfrom = 'b'\n[image.b]\nfrom = 'a'",
    [
      '2:8 image.a.from: these images are built upon each other: a → b → a | build one of them upon another image, such as "debian:bookworm"',
    ],
  ],
  [
    "[network.a]\nsubnet = '10.1.0.0/16'\n[network.b]\nsubnet = '10.1.2.0/24'",
    [
      '4:10 network.b.subnet: 10.1.2.0/24 overlaps the subnet of network "a" | choose one that does not, or leave it out',
    ],
  ],
  [
    "[network.a]\nsubnet = '10.1.0.1/24'",
    ['2:10 network.a.subnet: 10.1.0.1 is an address within the network, not its first | write "10.1.0.0/24"'],
  ],
  [
    "[network.a]\nsubnet = '8.8.8.0/24'",
    [
      '2:10 network.a.subnet: "8.8.8.0/24" is not a private network | use a part of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10',
    ],
  ],
  ["[secret.s]", ['1:9 secret.s: the secret "s" has no source | add generate = { length = 32 }, file or env']],
  ["[secret.s]\nenv = 'A'\nfile = 'b'", ["1:9 secret.s: a secret has one source, not file and env | keep one of them"]],
  [
    "[secret.s]\nenv = 'A'",
    ['warning 1:9 secret.s: nothing uses the secret "s" | remove it, or name it where it is needed'],
  ],
  ["a = ", [`1:5 : the value is missing | write a string in quotes, a number, true, false, a list or a table`]],
];

test("each mistake is told with its place, what is wrong and what would be right", () => {
  for (const [text, expected] of golden) assert.deepEqual(told(text), expected, text);
});

test("many mistakes are all told, in the order of the text, and nothing comes of them", () => {
  const text = container(
    "memory = 1",
    "cpus = 'x'",
    "publish = ['1']",
    "networks = ['n']",
    "needs = ['n']",
    "volumes = { v = '/v' }",
  );
  const { spec, problems } = check(text);
  assert.equal(spec, undefined);
  assert.deepEqual(
    problems.map(({ line }) => line),
    [3, 4, 5, 6, 7, 8],
  );
});

test("a wrong entry of a table does not hide what the other entries name", () => {
  assert.deepEqual(told(container("volumes = { v = '/v', './w' = 3 }")).length, 2);
});

test("messages show the line with the place underlined", () => {
  const text = '[container.web]\nimage = "nginx:1.27"\n\tmemory = 512\npublish = ["80"]\n';
  assert.equal(
    formatProblems(check(text).problems),
    [
      "error: memory must be a size, not the number 512",
      "  ┌─ croft.toml:3:11  container.web.memory",
      "3 │ \tmemory = 512",
      "  │ \t         ^^^",
      '  = for example: memory = "512MiB"',
      "",
      'error: "80" names one port only',
      "  ┌─ croft.toml:4:12  container.web.publish[1]",
      '4 │ publish = ["80"]',
      "  │            ^^^^",
      "  = write the host's port and the instance's: \"80:80\"",
      "",
      "2 errors",
      "",
    ].join("\n"),
  );
});

test("a very long line is shown around the place, and control characters do not reach the terminal", () => {
  const long = check(`stack = "${"x".repeat(300)}"\na = [${"1, ".repeat(200)}]`).problems;
  for (const line of formatProblems(long).split("\n")) assert(line.length < 400, line);
  const { problems } = checkStack({ path: "x", text: '{"stack": "\u001b[31m"}\u009b', folder: "/x", format: "json" });
  assert(!formatProblems(problems).includes("\u009b"));
});

function errorsOf(text: string): string[] {
  return check(text)
    .problems.filter(({ severity }) => severity === "error")
    .map(({ message }) => message);
}

test("every example of the reference is right where it stands", () => {
  const around = [
    "[network.back]",
    "[volume.db]",
    "[secret.db-password]\ngenerate = {}",
    "[container.db]\nimage = 'postgres:16'",
  ].join("\n");
  for (const { example } of Object.values(topFields)) assert.deepEqual(errorsOf(example), [], example);
  for (const { example } of Object.values(networkFields))
    assert.deepEqual(errorsOf(`[network.x]\n${example}`), [], example);
  for (const { example } of Object.values(volumeFields))
    assert.deepEqual(errorsOf(`[volume.x]\n${example}`), [], example);
  for (const { example } of Object.values(secretFields))
    assert.deepEqual(errorsOf(`[secret.x]\n${example}`), [], example);
  for (const [name, { example }] of Object.entries(imageFields)) {
    const from = name === "from" ? "" : "from = 'debian:bookworm'\n";
    assert.deepEqual(errorsOf(`[image.x]\n${from}${example}`), [], example);
  }
  for (const [name, { example }] of Object.entries(instanceFields)) {
    const image = name === "image" ? "" : "image = 'nginx'\n";
    assert.deepEqual(errorsOf(`${around}\n[container.x]\n${image}${example}`), [], example);
  }
});

test("what is left out has its default, and what is written is in bytes and milliseconds", () => {
  const { spec } = check(
    container("memory = '1.5GB'", "stop-grace = '1.5s'", "health = { tcp = 80 }", "env = { A = 1, B = true, C = 'x' }"),
  );
  const web = spec?.instances["web"];
  assert.deepEqual(spec?.networks, { default: { internal: false } });
  assert.equal(spec?.stack, "shop");
  assert.equal(web?.memoryBytes, 1.5e9);
  assert.equal(web?.stopGraceMs, 1500);
  assert.deepEqual(web?.health, {
    check: { kind: "tcp", port: 80 },
    intervalMs: 5000,
    timeoutMs: 3000,
    retries: 3,
    startPeriodMs: 0,
  });
  assert.deepEqual(web?.env, { A: { value: "1" }, B: { value: "true" }, C: { value: "x" } });
  assert.deepEqual(web?.update, { order: "stop-first", healthyWithinMs: 60_000 });
  assert.equal(web?.replicas, 1);
});

test("mounts of every kind are lowered, parents before what is beneath them", () => {
  const text = [
    "[volume.v]\n[secret.s]\ngenerate = {}",
    container(
      "volumes = { v = '/b/c', './data' = { path = '/b', read-only = true }, '/srv/x/' = '/a/' }",
      "files = { '/f' = { path = './x/../f.conf', mode = '0600' }, '/s' = { secret = 's' } }",
      "tmpfs = { '/t' = '1MiB' }",
    ),
  ].join("\n");
  const { spec, needs } = check(text);
  assert.deepEqual(spec?.instances["web"]?.mounts, [
    { kind: "bind", source: "/srv/x", destination: "/a", readOnly: false },
    { kind: "bind", source: "/srv/shop/data", destination: "/b", readOnly: true },
    { kind: "volume", volume: "v", destination: "/b/c", readOnly: false },
    { kind: "file", path: "f.conf", destination: "/f", mode: 0o600 },
    { kind: "secret", secret: "s", destination: "/s", mode: 0o400 },
    { kind: "tmpfs", destination: "/t", sizeBytes: 1048576 },
  ]);
  assert.deepEqual(needs, { files: ["f.conf"], env: [] });
});

test("what must be sent along is named, also while there are errors", () => {
  const text =
    "[secret.a]\nenv = 'TOKEN'\n[secret.b]\nfile = './b.txt'\n[image.i]\nfrom = 'scratch'\nfiles = { '/x' = './site' }\n[container.c]\nenv-file = 'c.env'\ncpus = 'x'";
  const { spec, needs } = check(text);
  assert.equal(spec, undefined);
  assert.deepEqual(needs, { files: ["b.txt", "c.env", "site"], env: ["TOKEN"] });
});

function encode(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

test("env files are read when they are there, later ones win, and env over all", () => {
  const text = container("env-file = ['a.env', './b.env']", "env = { C = 'own' }");
  const both = new Map([
    ["a.env", encode('\ufeff# first\nA=1\r\nexport B = two words \nC=a\n\nQ="x # y"\n')],
    ["b.env", encode("B='b'\nE=\nF=a=b")],
  ]);
  const { spec } = check(text, both);
  const values = Object.entries(spec?.instances["web"]?.env ?? {}).map(([name, value]) => [
    name,
    "value" in value && value.value,
  ]);
  assert.deepEqual(Object.fromEntries(values), { A: "1", B: "b", C: "own", Q: "x # y", E: "", F: "a=b" });
  assert(check(text).spec !== undefined);
  assert.deepEqual(told(text, new Map([["a.env", encode("A=1\nnonsense")]])), [
    "3:12 container.web.env-file: a.env:2: this is not NAME=value | write lines such as LOG_LEVEL=debug",
    '3:12 container.web.env-file: there is no file "b.env" beside the stack file | make it, or correct the path',
  ]);
});

test("the same document as JSON means the same", () => {
  const text = container("publish = ['8080:80']", "env = { A = 1 }");
  const json = JSON.stringify({ container: { web: { image: "nginx:1.27", publish: ["8080:80"], env: { A: 1 } } } });
  const fromJson = checkStack({ path: "croft.json", text: json, folder: "/srv/shop", format: "json" });
  assert.deepEqual(fromJson.spec, check(text).spec);
  const wrong = checkStack({
    path: "croft.json",
    text: '{\n  "stack": 3\n}',
    folder: "/srv/shop",
    format: "json",
  }).problems;
  assert.equal(
    `${wrong[0]?.line}:${wrong[0]?.column} ${wrong[0]?.message}`,
    "2:12 stack must be a name, not the number 3",
  );
});

function nameFor(folder: string): string | undefined {
  return checkStack({ path: "x", text: "", folder, format: "toml" }).spec?.stack;
}

test("a stack is named after its folder, as nearly as a name can be", () => {
  assert.equal(nameFor("/srv/My Shop!"), "my-shop");
  assert.equal(nameFor(`/srv/${"x".repeat(60)}`), "x".repeat(40));
  assert.equal(nameFor("/"), undefined);
  assert.throws(
    () => nameFor("relative"),
    (thrown) => thrown instanceof Fault && thrown.reason === "invalid",
  );
});

test("any document at all is a spec or has an error, and every problem is within the text", () => {
  const words = [
    ...Object.keys(instanceFields),
    ...Object.keys(imageFields),
    ...Object.keys(secretFields),
    "path",
    "secret",
    "mode",
    "add",
    "order",
    "web",
    "db",
    "length",
  ];
  const anyWord = fc.constantFrom(
    ...words,
    "/",
    "/x",
    "./x",
    "8080:80",
    "512MiB",
    "5s",
    ":80/",
    "default",
    "nginx",
    "always",
    "10.0.0.0/24",
    "ł",
  );
  const { value: anyValue } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 3 },
      anyWord,
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(anyWord, tie("value"), { maxKeys: 4 }),
    ),
  }));
  const anyNoun = fc.constantFrom("container", "image", "network", "volume", "secret", "vm", "stack");
  const anyDocument = fc.dictionary(anyNoun, fc.oneof(anyValue, fc.dictionary(fc.constantFrom("web", "db"), anyValue)));
  fc.assert(
    fc.property(anyDocument, (document) => {
      const text = JSON.stringify(document, null, 1);
      const { spec, problems } = checkStack({ path: "x", text, folder: "/srv/shop", format: "json" });
      assert.equal(
        spec === undefined,
        problems.some(({ severity }) => severity === "error"),
      );
      const lines = text.split("\n");
      for (const { line, column, message, hint, lineText } of problems) {
        assert.equal(lines[line - 1], lineText);
        assert(column >= 1 && column <= lineText.length + 1 && message !== "");
        assert(!/undefined|\[object|NaN|something else/.test(message + hint), `${message} | ${hint}`);
      }
    }),
    { numRuns: 3000 },
  );
});
