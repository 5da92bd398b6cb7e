import * as fc from "fast-check";
import type { Ruleset } from "./ruleset.ts";

/** Rulesets as the driver makes them: each bridge, subnet and published port once. */
export const anyRuleset: fc.Arbitrary<Ruleset> = fc
  .record({
    networks: fc.uniqueArray(fc.record({ number: fc.integer({ min: 1, max: 6 }), internal: fc.boolean() }), {
      selector: ({ number }) => number,
    }),
    ports: fc.uniqueArray(
      fc.record({
        hostAddress: fc.constantFrom("0.0.0.0", "127.0.0.1", "192.0.2.1"),
        hostPort: fc.integer({ min: 8080, max: 8084 }),
        protocol: fc.constantFrom("tcp" as const, "udp" as const),
        targets: fc.array(
          fc.record({
            address: fc.integer({ min: 2, max: 9 }).map((last) => `10.86.1.${last}`),
            port: fc.constantFrom(80, 443),
          }),
          { minLength: 1, maxLength: 3 },
        ),
      }),
      { selector: ({ hostAddress, hostPort, protocol }) => `${hostAddress} ${hostPort} ${protocol}` },
    ),
    resolvers: fc.uniqueArray(
      fc.record({
        address: fc.integer({ min: 250, max: 254 }).map((last) => `10.86.1.${last}`),
        clients: fc.uniqueArray(
          fc.integer({ min: 2, max: 9 }).map((last) => `10.86.1.${last}`),
          { maxLength: 3 },
        ),
      }),
      { maxLength: 3, selector: ({ address }) => address },
    ),
    uplinks: fc.constantFrom([], ["eth0"], ["eth0", "eth1"]),
    links: fc.uniqueArray(fc.integer({ min: 2, max: 9 }), { maxLength: 4 }),
  })
  .map(({ networks, ports, links, ...others }) => ({
    networks: networks.map(({ number, internal }) => ({
      bridge: `croft-${number}`,
      subnet: `10.86.${number}.0/24`,
      addresses: [`10.86.${number}.1`],
      internal,
    })),
    ports,
    ...others,
    links: links.map((last) => ({
      link: `croft-t${last}`,
      mac: `02:00:00:00:00:0${last}`,
      address: `10.86.1.${last}`,
    })),
  }));
