import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { mediaType } from "../manifest.ts";
import type { SampleImage } from "./sample-image-fixture.ts";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
}

/** Answers a request itself and returns true, or leaves it to the honest registry. */
export type Lie = (request: Asked, response: ServerResponse) => boolean;

/** For tests: a registry on a loopback port that holds one image and tells the truth unless a lie was given. */
export class LyingRegistry implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  static async start(image: SampleImage, lie: Lie = () => false): Promise<LyingRegistry> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const registry = new LyingRegistry(server);
    server.on("request", (incoming, response) => {
      const request = { method: incoming.method ?? "", path: incoming.url ?? "", headers: incoming.headers };
      registry.asked.push(request);
      incoming.resume();
      if (!lie(request, response)) honest(image, request, response);
    });
    return registry;
  }

  /** The image's name here. */
  get reference(): string {
    return `127.0.0.1:${this.port}/sample/image:1`;
  }

  get origin(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => void this.#server.close(() => resolve()));
  }
}

function honest(image: SampleImage, request: Asked, response: ServerResponse): void {
  const name = request.path.slice(request.path.lastIndexOf("/") + 1);
  if (request.path.includes("/manifests/") && (name === "1" || name === image.digest)) {
    sendManifest(response, image.manifest);
  } else if (request.path === "/v2/") {
    response.writeHead(200, { "content-type": "application/json" }).end("{}");
  } else {
    const blob = request.path.includes("/blobs/") ? image.blobs.get(name) : undefined;
    if (blob === undefined) {
      response.writeHead(404, { "content-type": "application/json" });
      response.end(JSON.stringify({ errors: [{ code: "NAME_UNKNOWN", message: "not known here" }] }));
    } else sendBlob(request, response, blob);
  }
}

export function sendManifest(response: ServerResponse, bytes: Buffer, type: string = mediaType.manifest): void {
  response.writeHead(200, { "content-type": type, "content-length": bytes.length });
  response.end(bytes);
}

function sendBlob(request: Asked, response: ServerResponse, blob: Buffer): void {
  const from = Number(/^bytes=([0-9]+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const range = from === 0 ? {} : { "content-range": `bytes ${from}-${blob.length - 1}/${blob.length}` };
  response.writeHead(from === 0 ? 200 : 206, { "content-length": blob.length - from, ...range });
  response.end(blob.subarray(from));
}
