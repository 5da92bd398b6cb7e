import { Fault } from "../../base/fault.ts";

/**
 * Where a registry is spoken to: https, everywhere but on this very machine. Whoever sits between us and a registry
 * could otherwise read the credentials and, for names without a digest, choose what we run.
 */
export function registryOrigin(domain: string): URL {
  // The registry of docker.io has another name than the one people write.
  if (domain === "docker.io") return new URL("https://registry-1.docker.io");
  const url = URL.parse(`https://${domain}`);
  if (url === null || url.pathname !== "/" || url.username !== "") {
    throw new Fault("invalid", `"${domain}" is not the address of a registry`);
  }
  if (isLoopback(url) && url.port !== "") url.protocol = "http:";
  return url;
}

/** This machine itself: `localhost`, 127.0.0.0/8 and ::1. */
export function isLoopback(url: URL): boolean {
  const host = url.hostname;
  return host === "localhost" || host === "[::1]" || /^127(?:\.[0-9]{1,3}){3}$/.test(host);
}

/**
 * Checks an address to which a registry sends us: for a token, for a blob, for an upload. From a registry that is not on
 * this machine it must be https and not on this machine: it may neither make us talk in the clear, nor make us ask
 * services here that trust whoever asks from here.
 *
 * @throws Fault `hostile`
 */
export function followable(target: string, from: URL, registry: URL, what: string): URL {
  const url = URL.parse(target, from);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    throw new Fault("hostile", `registry ${registry.host} names a ${what} that is not an address of the web`);
  }
  if (isLoopback(registry) && isLoopback(url)) return url;
  if (url.protocol !== "https:") {
    throw new Fault("hostile", `registry ${registry.host} names a ${what} without TLS, on ${url.host}`, {
      hint: "the registry's owner has to give it an https address",
    });
  }
  if (isLoopback(url)) {
    throw new Fault("hostile", `registry ${registry.host} names a ${what} on this machine`);
  }
  return url;
}
