import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { it } from "node:test";
import * as fc from "fast-check";
import { isFault } from "../../../base/fault.ts";
import { instanceId } from "../../../base/id.ts";
import type { ProgramLaunch } from "../../contract.ts";
import type { GuestSettings } from "../../guest.ts";
import { plainProgram } from "../../launch.fixture.ts";
import { launchMessage } from "./launch.ts";

const plain: ProgramLaunch = {
  id: instanceId("shop", "web", 1, "0123abcd"),
  ...plainProgram,
  root: { kind: "block", layers: [], writable: "/writable" },
  attachment: {
    kind: "tap",
    taps: [{ name: "t", mac: "02:00:00:00:00:07", address: "10.20.0.5", prefixLength: 24 }],
    gateway: "10.20.0.1",
    resolvers: ["10.20.0.1"],
  },
  argv: ["true"],
};

function messageOf(change: Partial<ProgramLaunch>, settings?: GuestSettings): Buffer {
  const around = settings === undefined ? {} : { settings };
  return launchMessage({ ...plain, ...change }, { nowSeconds: 1_800_000_000, ...around });
}

const settings: GuestSettings = {
  network: { nics: [], routes: [] },
  kernel: {},
  process: { bounding: [], ambient: [], limits: [], gainsPrivileges: false },
};

/** The script of a message, as the guest finds its end; and what follows it. */
function parts(message: Buffer): { readonly script: string; readonly files: Buffer } {
  const end = message.indexOf("\n.\n");
  return { script: message.toString("utf8", "launch\n".length, end + 1), files: message.subarray(end + 3) };
}

/** Runs the script with functions in place of the guest's own, which print what they are called with. */
function followed(script: string): string[] {
  const stubs = ["swiftly", "reseed", "nic", "name", "limit", "assemble", "mount_inside", "load_volumes"];
  const functions = stubs.map((name) => `${name}() { printf '%s\\0' ${name} "$@"; printf '\\n\\0'; }`);
  const begin =
    'unset_own() { :; }; enter() { shift 8; printf "%s\\0" "$A" "$@"; }; usual_path=/bin; begin() { eval "$program_text"; }';
  const whole = [...functions, begin, "take() { :; }; mkdir() { :; }; chmod() { :; }", script].join("\n");
  const { stdout, status, stderr } = spawnSync("/bin/busybox", ["sh", "-c", whole]);
  assert.equal(status, 0, String(stderr));
  return stdout.toString("utf8").split("\0");
}

const text = fc
  .oneof(fc.string({ unit: "binary" }), fc.string({ unit: fc.constantFrom("\n", ".", "'", "\\", "$", "a") }))
  .map((value) => value.replaceAll("\0", ""));

it("brings environment and arguments to the program as they are, whatever they hold", () => {
  fc.assert(
    fc.property(text, fc.array(text, { minLength: 1, maxLength: 3 }), (value, argv) => {
      const { script, files } = parts(messageOf({ env: { A: value }, argv }));
      assert.equal(files.length, 0);
      const said = followed(script);
      assert.deepEqual(said.slice(-(argv.length + 2), -1), [value, ...argv]);
    }),
    { numRuns: 60 },
  );
});

it("hands over the contents of files after the script, in the order in which they are taken", () => {
  const content = Buffer.from("\n.\nlaunch\0");
  const mounts = [{ kind: "file" as const, destination: "/run/secret", content, mode: 0o400, secret: true }];
  const { script, files } = parts(messageOf({ mounts }));
  assert.deepEqual(files.subarray(0, content.length), content);
  assert.match(script, new RegExp(`take ${content.length} '/run/file/0' \\|\\| return`));
  assert.equal(script.includes("secret"), false);
});

it("says in what the program is unusual, and keeps odd names out of the shell", () => {
  assert.match(parts(messageOf({})).script, /usual=yes/);
  for (const change of [
    { user: "web" },
    { terminal: true },
    { capabilities: { add: ["NET_ADMIN"], drop: [] } },
    { env: { LD_PRELOAD: "x.so" } },
    { env: { "a.b": "c" } },
  ]) {
    assert.match(parts(messageOf(change)).script, /usual=no/);
  }
  const odd = parts(messageOf({ env: { LD_PRELOAD: "x.so", "a.b": "c" } })).script;
  assert.equal(/export[^\n]*(LD_PRELOAD|a\.b)/.test(odd), false);
});

it("refuses addresses that are none", () => {
  const attachment = {
    kind: "tap" as const,
    resolvers: [],
    taps: [{ name: "t", mac: "x; reboot", address: "1.2.3.4", prefixLength: 8 }],
  };
  assert.throws(
    () => messageOf({ attachment }),
    (error) => isFault(error, "bug"),
  );
});

it("follows settings in place of what the launch would have: network, kernel, limits, rights", () => {
  const network: GuestSettings["network"] = {
    nics: [
      {
        mac: "02:00:00:00:00:09",
        mtu: 1400,
        addresses: [
          { address: "10.0.0.2", prefixLength: 8 },
          { address: "fd00::2", prefixLength: 64 },
        ],
      },
    ],
    routes: [
      { family: 4, destination: "10.9.0.0/16", nic: 0, metric: 7 },
      { family: 6, destination: "default", gateway: "fd00::1", nic: 0 },
    ],
  };
  const process: GuestSettings["process"] = {
    bounding: ["KILL"],
    ambient: [],
    limits: [
      { name: "NOFILE", soft: 1024, hard: 4096 },
      { name: "STACK", soft: 8 * 2 ** 20 },
    ],
    gainsPrivileges: true,
    umask: 0o27,
  };
  const { script } = parts(messageOf({ user: "7:8:9" }, { network, kernel: { "a/b": "it's" }, process }));
  const lines = script.split("\n");
  assert.deepEqual(
    lines.filter((line) => /^(nic|swiftly ip|kernel_setting)/.test(line)),
    [
      "nic eth0 02:00:00:00:00:09 10.0.0.2/8 fd00::2/64",
      "swiftly ip link set eth0 mtu 1400",
      "swiftly ip route add 10.9.0.0/16 dev eth0 metric 7",
      "swiftly ip -6 route add default via fd00::1 dev eth0",
      String.raw`kernel_setting 'a/b' 'it'\''s' || return`,
    ],
  );
  const [, program = ""] = /program_text=('[^]*?')\nbegin/.exec(script) ?? [];
  const { stdout } = spawnSync("/bin/busybox", ["sh", "-c", `printf %s ${program}`], { encoding: "utf8" });
  assert.equal(
    stdout,
    "unset_own\numask 0027\nenter 3 '7:8:9' '/' ',+kill' '' '' 'n 4096 1024 s unlimited 8192' '0' 'true'",
  );
});

it("does not take text for an address", () => {
  for (const [address, destination] of [
    ["1.2.3.4; reboot", "default"],
    ["fe80::1%eth0", "default"],
    ["1.2.3.4", "$(reboot)"],
    ["1.2.3.4", "1.2.3.4/x"],
  ] as const) {
    const network: GuestSettings["network"] = {
      nics: [{ mac: "02:00:00:00:00:09", addresses: [{ address, prefixLength: 8 }] }],
      routes: [{ family: 4, destination, nic: 0 }],
    };
    assert.throws(
      () => messageOf({}, { ...settings, network }),
      (error) => isFault(error, "bug"),
    );
  }
});
