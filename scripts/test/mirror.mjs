// The tests' only way out of their network namespace: to the mirror that this machine gets Debian packages from. One end
// is an HTTP proxy outside, on a unix socket, which needs no network between the two; the other gives it a port inside,
// where apt's own configuration names it.
//
//     node mirror.mjs outside SOCKET
//     node mirror.mjs inside SOCKET
import { createServer, request } from "node:http";
import { connect, createServer as createTcpServer } from "node:net";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Of the port inside; nothing of the tests listens there. */
const port = 3142;

/** A directory that stands in front of apt's own configuration. */
export function writeAptConfiguration(directory) {
  mkdirSync(directory);
  const url = `"http://127.0.0.1:${port}";`;
  writeFileSync(join(directory, "zz-croft-test"), `Acquire::http::Proxy ${url}\nAcquire::https::Proxy ${url}\n`);
  return directory;
}

function serveOutside(socket) {
  const server = createServer((asked, answer) => {
    const { method, headers, url } = asked;
    const onward = request(url, { method, headers }, (answered) => {
      answer.writeHead(answered.statusCode, answered.headers);
      answered.pipe(answer);
    });
    onward.on("error", (error) => (answer.headersSent ? answer.destroy() : answer.writeHead(502).end(error.message)));
    asked.pipe(onward);
  });
  server.on("connect", ({ url }, client) => {
    const { hostname, port: to } = new URL(`http://${url}`);
    const onward = connect(Number(to || 443), hostname, () => {
      client.write("HTTP/1.1 200 OK\r\n\r\n");
      onward.pipe(client).pipe(onward);
    });
    endTogether(onward, client);
  });
  server.listen(socket);
}

function serveInside(socket) {
  createTcpServer((client) => {
    const onward = connect(socket);
    endTogether(onward, client);
    onward.pipe(client).pipe(onward);
  }).listen(port, "127.0.0.1");
}

function endTogether(one, other) {
  one.on("error", () => other.destroy());
  other.on("error", () => one.destroy());
}

const [, , side, socket] = process.argv;
if (side === "outside") serveOutside(socket);
if (side === "inside") serveInside(socket);
