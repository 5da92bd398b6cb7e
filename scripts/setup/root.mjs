/** Ends with an explanation unless we are root: containers, mounts and network namespaces cannot be made otherwise. */
export function requireRoot(command) {
  if (process.getuid?.() === 0) return;
  console.error(
    `Croft makes containers, mounts and networks, and needs root for that. Run it as:\n\n    sudo ${command}\n`,
  );
  process.exit(77);
}
