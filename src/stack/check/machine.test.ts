import assert from "node:assert/strict";
import { test } from "node:test";
import { guestFields, machineFields, microvmFields } from "../guest-field.ts";
import { checkStack } from "./check.ts";

function check(text: string) {
  return checkStack({ path: "croft.toml", text, folder: "/srv/shop", format: "toml" });
}

/** `line:column key: message | hint`, with the severity first when it is a warning. */
function told(text: string): string[] {
  return check(text).problems.map(({ severity, line, column, key, message, hint }) => {
    return `${severity === "warning" ? "warning " : ""}${line}:${column} ${key}: ${message} | ${hint}`;
  });
}

function microvm(...lines: readonly string[]): string {
  return ["[microvm.web]", 'image = "nginx:1.27"', ...lines].join("\n");
}

function machine(...lines: readonly string[]): string {
  return ["[vm.files]", 'disk = "debian.qcow2"', ...lines].join("\n");
}

/** What is written, and all that is said about it. */
const golden: readonly (readonly [string, readonly string[]])[] = [
  [microvm(), []],
  [machine(), []],
  [
    machine("memory = '8MiB'"),
    ["3:10 vm.files.memory: memory is too little for a system to start | write at least 64MiB"],
  ],
  [microvm("kernel = 'vmlinuz'"), ['3:10 microvm.web.kernel: "vmlinuz" is not an absolute path | begin it with /']],
  [
    microvm("disk = 'x'"),
    [
      '3:1 microvm.web.disk: there is no field "disk" here | there is: image, command, entrypoint, env, env-file, user, workdir, hostname, volumes, files, tmpfs, networks, …',
    ],
  ],
  [
    microvm("publish = ['8080:80']") + "\n[container.api]\nimage = 'x'\npublish = ['8080:1']",
    [
      '3:12 microvm.web.publish[1]: port 8080/tcp of the host is already published by container "api" | choose another port of the host',
    ],
  ],
  [
    microvm() + "\n[container.web]\nimage = 'x'",
    ['1:10 microvm.web: "web" is a container already | give the microvm another name'],
  ],
  [
    machine("replicas = 2") + "\n[microvm.files-2]\nimage = 'x'",
    ['4:10 microvm.files-2: "files-2" is already the name of a replica of "files" | choose another name'],
  ],
  [
    microvm("needs = ['files']") + "\n" + machine("needs = ['web']"),
    [
      "3:9 microvm.web.needs: these need each other, so none could start first: web → files → web | take one of these out of needs; a program can also wait for another by itself",
    ],
  ],
  [
    machine("needs = ['flies']"),
    ['3:10 vm.files.needs[1]: there is no instance "flies" | declare it as [vm.flies], or take it out'],
  ],
  [
    machine("networks = ['back']"),
    ['3:13 vm.files.networks[1]: there is no network "back" | declare it as [network.back]'],
  ],
  [
    "[vm.localhost]\ndisk = 'x'",
    [
      '1:5 vm.localhost: a vm cannot be called "localhost": inside every instance it means the instance itself | choose another name',
    ],
  ],
  [
    machine("image = 'nginx'"),
    [
      '3:1 vm.files.image: there is no "image" here: a vm starts from disks | write disk = { image = "debian-12-cloud.qcow2" }; what runs an image of a registry is a [microvm.x]',
    ],
  ],
  [
    machine("command = ['x']", "pids = 3", "stop-signal = 'SIGTERM'", "files = {}"),
    [
      '3:1 vm.files.command: there is no "command" here: what a vm runs is on its disks | tell it by cloud-init; what runs a program of an image is a [microvm.x]',
      '4:1 vm.files.pids: there is no "pids" here: that is up to the system in the vm | leave it out',
      '5:1 vm.files.stop-signal: there is no "stop-signal" here: a vm is asked to shut down as by its power button | leave it out',
      '6:1 vm.files.files: there is no "files" here: nothing is put into a vm\'s disks from outside | let cloud-init write it: write_files in user-data',
    ],
  ],
  [
    machine("volumes = { db = '/data' }"),
    [
      '3:1 vm.files.volumes: there is no "volumes" here: a vm has disks of its own | write disks = { data = { blank = true, size = "5GiB" } }',
    ],
  ],
  ["[vm.a]\ndisk = { blank = true }", ['2:8 vm.a.disk: a blank disk needs a size | add size = "20GiB"']],
  [
    "[vm.a]\ndisk = { image = 'x', blank = true, size = '1GiB' }",
    ["2:8 vm.a.disk: a disk is a copy of an image or blank, not both | take one of the two out"],
  ],
  [
    "[vm.a]\ndisk = { size = '1GiB' }",
    ['2:8 vm.a.disk: a disk needs image, iso or blank | for example: { image = "debian-12-cloud.qcow2" }'],
  ],
  [
    "[vm.a]\ndisk = { iso = 'x.iso', size = '1GiB' }",
    ["2:8 vm.a.disk: an iso has the size it has | add blank = true for an empty disk of this size beside it"],
  ],
  [
    "[vm.a]\ndisk = '../x'",
    [
      "2:8 vm.a.disk: disk is not the name of a disk image | write it as croft image ls --disks shows it, such as debian-12-cloud.qcow2",
    ],
  ],
  [
    machine("disks = { root = 'x' }"),
    ['3:11 vm.files.disks.root: "root" is what field disk makes | choose another name'],
  ],
  [
    machine("disks = { d = { image = 'x', iso = 'y' } }"),
    ["3:15 vm.files.disks.d: a disk and a CD-ROM drive are two | give each a name of its own"],
  ],
  [machine("boot = ['data']"), ['3:9 vm.files.boot[1]: there is no disk "data" | there is: root']],
  [machine("boot = ['root', 'root']"), ['3:17 vm.files.boot[2]: "root" is named twice | remove one of the two']],
  [
    machine("firmware = 'efi'"),
    ['3:12 vm.files.firmware: firmware cannot be "efi" | did you mean "uefi"? It can be "bios", "uefi", "uefi-secure"'],
  ],
  [
    machine("cpus = 2", "topology = { cores = 4 }"),
    ["4:12 vm.files.topology: this makes 4 processors, but cpus is 2 | write cpus = 4, or another topology"],
  ],
  [
    machine("pci = ['03:00.0']"),
    ["3:8 vm.files.pci[1]: pci entry 1 is not a PCI address | write it as lspci -D does: 0000:03:00.0"],
  ],
  [
    machine("cloud-init = { user-data = '/etc/x' }"),
    [
      '3:28 vm.files.cloud-init.user-data: "/etc/x" is not beside the stack file | write a path relative to the file, such as ./site.conf',
    ],
  ],
  [
    machine("cloud-init = { user-data = { secret = 'u' } }"),
    [
      '3:39 vm.files.cloud-init.user-data.secret: there is no secret "u" | declare it: [secret.u] with generate = { length = 32 }',
    ],
  ],
  [
    machine("cloud-init = false", "ssh-keys = ['./id.pub']", "hostname = 'files'"),
    [
      "warning 4:12 vm.files.ssh-keys: without cloud-init nobody puts these keys into the machine | take cloud-init = false out",
      "warning 5:12 vm.files.hostname: without cloud-init nobody calls the machine so | take cloud-init = false out",
    ],
  ],
  [machine("cloud-init = { user-data = './u' }", "ssh-keys = ['./id.pub']", "hostname = 'files'"), []],
  [
    machine("cloud-init = { meta-data = './m' }", "ssh-keys = ['./id.pub']", "hostname = 'files'"),
    [
      "warning 4:12 vm.files.ssh-keys: beside a meta-data of yours nobody puts these keys into the machine | write public-keys into it, or take meta-data out of cloud-init",
      "warning 5:12 vm.files.hostname: beside a meta-data of yours nobody calls the machine so | write local-hostname into it, or take meta-data out of cloud-init",
    ],
  ],
  [
    machine("ssh-keys = ['-----BEGIN OPENSSH PRIVATE KEY-----']"),
    ["3:13 vm.files.ssh-keys[1]: this is a private key | write the public one, which ends in .pub"],
  ],
];

test("each mistake about guests is told with its place, what is wrong and what would be right", () => {
  for (const [text, expected] of golden) assert.deepEqual(told(text), expected, text);
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
  for (const [name, { example }] of Object.entries(microvmFields)) {
    const image = name === "image" ? "" : "image = 'nginx'\n";
    assert.deepEqual(errorsOf(`${around}\n[microvm.x]\n${image}${example}`), [], example);
  }
  for (const [name, { example }] of Object.entries(machineFields)) {
    const disk = name === "disk" ? "" : "disk = { iso = 'debian.iso', blank = true, size = '20GiB' }\n";
    const rest = name === "topology" ? "cpus = 2\n" : "";
    assert.deepEqual(errorsOf(`${around}\n[vm.x]\n${disk}${rest}${example}`), [], example);
  }
  assert.ok(Object.keys(guestFields).every((name) => name in microvmFields));
});

test("one word makes a microvm of a container: the same but for what a guest has", () => {
  const lines = "image = 'nginx'\nenv = { A = '1' }\ntmpfs = ['/t']\nstop-signal = 'SIGQUIT'\nmemory = '512MiB'";
  const container = check(`[container.web]\n${lines}`).spec?.instances["web"];
  const guest = check(`[microvm.web]\n${lines}\nwarm-start = false`).spec?.instances["web"];
  assert.deepEqual(guest, { ...container, kind: "microvm", warmStart: false });
});

test("a machine's disks are lowered in boot order, and what is left out has its default", () => {
  const { spec, needs } = check(
    machine(
      "disks = { data = { blank = true, size = '1GiB' }, tools = { iso = 'tools.iso' } }",
      "boot = ['tools', 'root']",
      "ssh-keys = ['./keys/../id.pub', 'ssh-ed25519 AAAA anna@box']",
      "cloud-init = { user-data = './user-data.yaml' }",
    ),
  );
  const files = spec?.instances["files"];
  assert.deepEqual(files?.disks, [
    { name: "tools", from: { kind: "iso", image: "tools.iso" } },
    { name: "root", from: { kind: "image", image: "debian.qcow2" } },
    { name: "data", from: { kind: "blank" }, sizeBytes: 2 ** 30 },
  ]);
  assert.deepEqual(files?.sshKeys, [{ path: "id.pub" }, { key: "ssh-ed25519 AAAA anna@box" }]);
  assert.deepEqual(files?.cloudInit, { kind: "files", userData: { path: "user-data.yaml" } });
  assert.deepEqual(needs, { files: ["id.pub", "user-data.yaml"], env: [] });
  const { kind, image, cpus, memoryBytes, pids, firmware, restart, networks, stopGraceMs } = files ?? {};
  assert.deepEqual(
    { kind, image, cpus, memoryBytes, pids, firmware, restart, networks, stopGraceMs },
    {
      kind: "vm",
      image: "debian.qcow2",
      cpus: 1,
      memoryBytes: 2 ** 30,
      pids: undefined,
      firmware: "bios",
      restart: "on-failure",
      networks: ["default"],
      stopGraceMs: 60_000,
    },
  );
});

test("an iso beside a blank disk is a drive of its own, which is tried after the disk", () => {
  const { spec } = check("[vm.a]\ndisk = { iso = 'install.iso', blank = true, size = '20GiB' }");
  assert.deepEqual(spec?.instances["a"]?.disks, [
    { name: "root", from: { kind: "blank" }, sizeBytes: 20 * 2 ** 30 },
    { name: "iso", from: { kind: "iso", image: "install.iso" } },
  ]);
  const alone = check("[vm.a]\ndisk = { iso = 'live.iso' }").spec?.instances["a"];
  assert.deepEqual(alone?.disks, [{ name: "iso", from: { kind: "iso", image: "live.iso" } }]);
  assert.equal(alone?.image, "live.iso");
});
