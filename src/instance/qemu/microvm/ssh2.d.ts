/** The part of ssh2 that is used here; the package brings no types of its own. */
declare module "ssh2" {
  import type { Duplex, Readable } from "node:stream";

  export interface ClientChannel extends Duplex {
    readonly stderr: Readable;
    setWindow(rows: number, columns: number, height: number, width: number): void;
    close(): void;
    on(event: "exit" | "close", listener: (code?: number | null, signal?: string) => void): this;
    on(event: string, listener: (...values: never[]) => void): this;
  }

  export class Client {
    connect(options: {
      readonly sock: Duplex;
      readonly username: string;
      readonly authHandler: readonly string[];
      readonly readyTimeout: number;
      readonly hostVerifier: (key: Buffer) => boolean;
      readonly algorithms: Readonly<Record<string, readonly string[]>>;
    }): this;
    exec(
      command: string,
      options: { readonly pty?: { readonly rows: number; readonly cols: number; readonly term: string } },
      callback: (error: Error | undefined, channel: ClientChannel) => void,
    ): this;
    end(): this;
    destroy(): this;
    on(event: "ready" | "close", listener: () => void): this;
    on(event: "error", listener: (error: Error) => void): this;
  }
}
