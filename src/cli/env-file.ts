/** The lines of an env file as docker and podman read it: `NAME=VALUE`, taken as it is, or `NAME`; `#` begins a comment. */
export function parseEnvFile(text: string): readonly string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trimStart())
    .filter((line) => line !== "" && !line.startsWith("#"));
}
