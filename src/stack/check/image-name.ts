/**
 * What is wrong with an image's name and, on the next line, what would be right; undefined when it can be one. A local
 * name (`site`), a Debian suite (`debian:bookworm`) and a registry reference share one grammar: `[host[:port]/]path[:tag][@digest]`.
 */
export function imageNameProblem(text: string): string | undefined {
  if (text === "") return 'an image\'s name is empty\nwrite one such as "nginx:1.27"';
  if (/^https?:\/\//.test(text))
    return `"${text}" is an address, not an image\nleave out ${text.slice(0, text.indexOf("/") + 2)}`;
  if (text.length > 400) return 'this is too long to be an image\nwrite one such as "nginx:1.27"';
  const match = /^([^@]*?)(?::([^:/@]*))?(?:@(.*))?$/.exec(text);
  const [, path = "", tag, digest] = match ?? [];
  if (digest !== undefined && !/^sha256:[0-9a-f]{64}$/.test(digest)) {
    return `"${digest}" is not a digest\nwrite sha256: and 64 hexadecimal digits`;
  }
  if (tag !== undefined && !/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(tag)) {
    return `"${tag}" is not a tag\nuse letters, digits, _, . and -, at most 128 of them`;
  }
  const parts = path.split("/");
  const host = parts.length > 1 && /[.:]|^localhost$/.test(parts[0] ?? "") ? parts.shift() : undefined;
  if (host !== undefined && !/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$/.test(host)) {
    return `"${host}" is not a registry\nwrite a host name, with :port if it is not the usual one`;
  }
  for (const part of parts) {
    if (/^[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*$/.test(part)) continue;
    if (/[A-Z]/.test(part)) return `"${text}" has capital letters\nwrite "${text.toLowerCase()}"`;
    return `"${text}" is not an image\nwrite the name of an [image.x] of this file, or a reference such as "nginx:1.27" or "ghcr.io/acme/site:2"`;
  }
  return undefined;
}
