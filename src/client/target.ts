import { Fault } from "../base/fault.ts";

/** Where the daemon listens. */
export type Target =
  /** Whoever may open the file is trusted. */
  | { readonly kind: "unix"; readonly socketPath: string }
  | { readonly kind: "tcp"; readonly url: URL; readonly token: string };

/**
 * The target that the environment names: `CROFT_HOST` is `unix:///path`, `http://host:port` or `https://host:port`, the
 * latter two with the token in `CROFT_TOKEN`. Without `CROFT_HOST` it is `defaultSocketPath`.
 */
export function targetFromEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  defaultSocketPath: string,
): Target {
  const host = env["CROFT_HOST"] ?? "";
  if (host === "") return { kind: "unix", socketPath: defaultSocketPath };
  const url = URL.parse(host);
  switch (url?.protocol) {
    case "unix:":
      return { kind: "unix", socketPath: decodeURIComponent(url.pathname) };
    case "http:":
    case "https:": {
      const token = env["CROFT_TOKEN"] ?? "";
      if (token === "") {
        throw new Fault("unauthenticated", `${host} wants a token, and CROFT_TOKEN is not set`, {
          hint: "set CROFT_TOKEN to the token that the daemon was given",
        });
      }
      return { kind: "tcp", url, token };
    }
    default:
      throw new Fault("invalid", `${host} is not an address of a daemon`, {
        hint: "write unix:///run/croft/croft.sock, http://host:port or https://host:port",
      });
  }
}

/** For messages: where the daemon was looked for. */
export function describeTarget(target: Target): string {
  return target.kind === "unix" ? target.socketPath : target.url.origin;
}
