import type { PublishSection } from "../model.ts";
import { parseAddress } from "./ipv4.ts";

type Wrong = { readonly wrong: string };

/** `8080:80`, `127.0.0.1:8443:443`, `53:53/udp`; or what is wrong and, on the next line, what would be right. */
export function parsePublish(text: string): PublishSection | Wrong {
  const [ports = "", protocol = "tcp", ...more] = text.split("/");
  if (more.length > 0 || (protocol !== "tcp" && protocol !== "udp")) {
    return { wrong: `"${text}" does not end in a protocol\nwrite /tcp or /udp, or leave it out for tcp` };
  }
  if (ports.includes("[") || ports.split(":").length > 3) {
    return {
      wrong: `"${text}" is not a published port\nwrite "8080:80" or "127.0.0.1:8080:80"; IPv6 addresses of the host are not supported yet`,
    };
  }
  const parts = ports.split(":");
  if (parts.some((part) => /^[0-9]+-[0-9]+$/.test(part))) {
    return { wrong: `"${text}" is a range of ports\nwrite one entry for each port` };
  }
  const [container, host, address = "0.0.0.0"] = parts.toReversed();
  if (container === undefined || host === undefined) {
    return {
      wrong: `"${text}" names one port only\nwrite the host's port and the instance's: "${text.replace(/\/.*/, "")}:80"`,
    };
  }
  if (parseAddress(address) === undefined) {
    return {
      wrong: `"${address}" is not an IPv4 address of the host\nwrite one such as 127.0.0.1, or leave it out for all addresses`,
    };
  }
  const hostPort = parsePort(host);
  if (typeof hostPort !== "number") return hostPort;
  const port = parsePort(container);
  if (typeof port !== "number") return port;
  return { hostAddress: address, hostPort, port, protocol };
}

/** `:80/healthz`, `80`, `:8080`. */
export function parseHttp(text: string): { readonly port: number; readonly path: string } | Wrong {
  const match = /^:?([0-9]+)(\/\S*)?$/.exec(text);
  if (match === null)
    return { wrong: `"${text}" is not a port and path\nwrite the instance's port and the path: ":80/healthz"` };
  const port = parsePort(match[1] ?? "");
  return typeof port === "number" ? { port, path: match[2] ?? "/" } : port;
}

/** `5432`, `:5432`. */
export function parsePort(text: string): number | Wrong {
  const digits = text.replace(/^:/, "");
  const port = Number(digits);
  if (!/^[0-9]{1,5}$/.test(digits) || port < 1 || port > 65_535) {
    return { wrong: `"${text}" is not a port\nwrite a number from 1 to 65535` };
  }
  return port;
}
