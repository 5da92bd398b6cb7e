/** One bridge with addresses and a way out, as the documentation of the CNI plugins writes it. */
export function bridgeConfig(name: string, bridge: string, subnet: string): string {
  const ipam = { type: "host-local", ranges: [[{ subnet }]], routes: [{ dst: "0.0.0.0/0" }] };
  const plugin = { type: "bridge", bridge, isGateway: true, ipMasq: true, hairpinMode: true, ipam };
  return JSON.stringify({ cniVersion: "0.4.0", name, plugins: [plugin] });
}
