import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { backgroundCall } from "../../../base/call.ts";
import { isFault } from "../../../base/fault.ts";
import { instanceId } from "../../../base/id.ts";
import { askGuest } from "./guest.ts";

describe("what a guest says of itself", () => {
  const call = backgroundCall();
  const id = instanceId("shop", "files", 1, "0123abcd");
  const answers = new Map<string, unknown>();
  const server = createServer(answer);
  let path: string;
  let directory: string;

  /** As the agent does: a question a line, and what it was told to answer. */
  function answer(socket: Socket): void {
    socket.setEncoding("latin1").on("error", () => {});
    socket.on("data", (text: string) => {
      for (const line of text.replaceAll("\u00ff", "").split("\n").filter(Boolean)) {
        const { execute, arguments: args } = JSON.parse(line) as { execute: string; arguments: { id?: number } };
        const known = execute === "guest-sync-delimited" ? args.id : answers.get(execute);
        const unknown = { error: { class: "CommandNotFound", desc: `The command ${execute} has not been found` } };
        socket.write(`${JSON.stringify(known === undefined ? unknown : { return: known })}\n`);
      }
    });
  }

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "agent."));
    path = join(directory, "agent.sock");
    await new Promise<void>((resolve) => server.listen(path, resolve));
  });
  after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  it("is its name, its system and its addresses", async () => {
    answers.set("guest-get-host-name", { "host-name": "files" });
    answers.set("guest-get-osinfo", { "pretty-name": "Debian GNU/Linux 12", "kernel-release": "6.1.0" });
    answers.set("guest-network-get-interfaces", [
      { name: "lo", "ip-addresses": [{ "ip-address": "127.0.0.1", prefix: 8 }] },
      {
        name: "enp1s0",
        "hardware-address": "02:00:00:00:00:01",
        "ip-addresses": [
          { "ip-address": "10.0.0.2", prefix: 24 },
          { "ip-address": "fe80::1", prefix: 64 },
        ],
      },
      { name: "enp2s0" },
    ]);
    const { addresses, ...rest } = await askGuest(id, path, call);
    assert.deepEqual(rest, { hostname: "files", system: "Debian GNU/Linux 12", kernel: "6.1.0" });
    assert.deepEqual(
      addresses.map(({ interface: name, mac, address }) => `${name} ${mac} ${address}`),
      ["enp1s0 02:00:00:00:00:01 10.0.0.2/24", "enp1s0 02:00:00:00:00:01 fe80::1/64"],
    );
  });

  it("is text, and not without end, whatever it says", async () => {
    answers.set("guest-get-host-name", { "host-name": `\u001b[2J${"x".repeat(10_000)}` });
    answers.delete("guest-get-osinfo");
    for (const wrong of [
      null,
      "none",
      [null, 1, { name: 2 }, { name: "a", "ip-addresses": [null, { prefix: "x" }] }],
    ]) {
      answers.set("guest-network-get-interfaces", wrong);
      const { hostname, system, addresses } = await askGuest(id, path, call);
      assert.match(hostname, /^\[2Jx{197}$/);
      assert.deepEqual([system, addresses], ["", []]);
    }
  });

  it("is nothing where no agent answers", async () => {
    const none = askGuest(id, join(directory, "none.sock"), call);
    await assert.rejects(none, (error) => isFault(error, "unavailable"));
  });
});
