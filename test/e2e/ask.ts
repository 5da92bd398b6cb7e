import { createConnection } from "node:net";

const limitMs = 10_000;

/** What a TCP server says until it hangs up; `say` is sent first. Rejects when nobody listens, or nothing comes. */
export function ask(port: number, address = "127.0.0.1", say = ""): Promise<string> {
  return new Promise((resolve, reject) => {
    let heard = "";
    const socket = createConnection({ port, host: address });
    socket.setTimeout(limitMs, () => socket.destroy(new Error(`${address}:${port} said nothing for ${limitMs} ms`)));
    socket.setEncoding("utf8").on("data", (text: string) => (heard += text));
    socket.once("error", reject);
    socket.once("close", () => resolve(heard.trim()));
    if (say !== "") socket.write(say);
  });
}
