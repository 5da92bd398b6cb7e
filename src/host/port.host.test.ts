import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { createSocket } from "node:dgram";
import { execFileSync } from "node:child_process";
import { before, test } from "node:test";
import { isFault } from "../base/fault.ts";
import { findHolder, parseSockets, reservePort } from "./port.ts";

before(() => {
  execFileSync("ip", ["link", "set", "lo", "up"]);
});

test("a reserved port is refused to others, also on every address, until it is released", async () => {
  for (const protocol of ["tcp", "udp"] as const) {
    const reserved = reservePort(protocol, "127.0.0.1", 18_080);
    for (const address of ["127.0.0.1", "0.0.0.0"]) {
      assert.throws(
        () => reservePort(protocol, address, 18_080),
        (error) => isFault(error, "conflict") && error.detail["errno"] === "EADDRINUSE",
      );
    }
    reservePort(protocol, "127.0.0.2", 18_080).release();
    reserved.release();
    reservePort(protocol, "0.0.0.0", 18_080).release();
  }
});

test("an ordinary server cannot listen on a reserved port", async () => {
  const reserved = reservePort("tcp", "0.0.0.0", 18_081);
  const server = createServer().listen(18_081, "127.0.0.1");
  const [error] = await once(server, "error").catch((thrown: unknown) => [thrown]);
  assert.equal((error as NodeJS.ErrnoException).code, "EADDRINUSE");
  reserved.release();
});

test("who listens on a port is found by name and pid, whichever address it was asked by", async () => {
  const server = createServer().listen(18_082, "127.0.0.1");
  await once(server, "listening");
  const socket = createSocket("udp4").bind(18_082);
  await once(socket, "listening");
  try {
    assert.throws(
      () => reservePort("tcp", "0.0.0.0", 18_082),
      (error) => isFault(error, "conflict"),
    );
    assert.equal(findHolder("tcp", "0.0.0.0", 18_082)?.pid, process.pid);
    assert.equal(findHolder("tcp", "127.0.0.1", 18_082)?.pid, process.pid);
    assert.equal(findHolder("tcp", "127.0.0.2", 18_082), undefined);
    assert.equal(findHolder("udp", "127.0.0.2", 18_082)?.pid, process.pid);
    assert.equal(findHolder("tcp", "0.0.0.0", 18_083), undefined);
  } finally {
    server.close();
    socket.close();
  }
});

test("an address that is not of this host is invalid, not held", () => {
  assert.throws(
    () => reservePort("tcp", "198.51.100.7", 18_084),
    (error) => isFault(error, "invalid"),
  );
});

test("the kernel's table of sockets is read as it is written", () => {
  const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1 0000000000000000 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31338 1 0000000000000000 100 0 0 10 0
`;
  assert.deepEqual(parseSockets(table), [
    { address: "127.0.0.1", port: 8080, listening: true, inode: "31337" },
    { port: 80, listening: true, inode: "31338" },
  ]);
});
