import { type Attribute, netfilterSocket, type Request, u16be, u32, u8 } from "./netlink.ts";

/**
 * The kernel's table of connections, as far as translating addresses makes us touch it.
 *
 * Where a connection is translated to is decided by its first packet. That is right for TCP. UDP has no end: a client
 * that goes on sending keeps its entry alive, and would reach neither a new target nor a port published meanwhile.
 */

const subsystem = 1;
const deleteConnection = 2;
const tupleOriginal = 1;
const tupleReply = 2;
const tupleAddresses = 1;
const tupleProtocol = 2;
const addressV4Source = 1;
const addressV4Destination = 2;
const protocolNumber = 1;
const protocolSourcePort = 2;
const protocolDestinationPort = 3;
const filter = 25;
const filterOriginal = 1;
const filterReply = 2;
/** Which parts of a tuple the kernel compares; bits in the order of its own enumeration. */
const compare = { source: 1 << 0, destination: 1 << 1, protocol: 1 << 3, sourcePort: 1 << 4, destinationPort: 1 << 5 };
const udp = 17;
const afInet = 2;

/** Forgets UDP connections that were translated to `address`:`port`, where nobody receives them any more. */
export function forgetUdpTo(address: string, port: number): void {
  forget(`forget UDP connections to ${address}:${port}`, {
    tuple: tupleReply,
    filter: filterReply,
    parts: compare.source | compare.protocol | compare.sourcePort,
    address: { type: addressV4Source, value: addressBytes(address) },
    port: { type: protocolSourcePort, value: u16be(port) },
  });
}

/** Forgets UDP connections that were made to `address`:`port` itself, whatever they were translated to. */
export function forgetUdpAt(address: string, port: number): void {
  forget(`forget UDP connections at ${address}:${port}`, {
    tuple: tupleOriginal,
    filter: filterOriginal,
    parts: compare.destination | compare.protocol | compare.destinationPort,
    address: { type: addressV4Destination, value: addressBytes(address) },
    port: { type: protocolDestinationPort, value: u16be(port) },
  });
}

interface Pattern {
  readonly tuple: number;
  readonly filter: number;
  readonly parts: number;
  readonly address: Attribute;
  readonly port: Attribute;
}

function forget(attempted: string, pattern: Pattern): void {
  const request: Request = {
    message: {
      type: (subsystem << 8) | deleteConnection,
      flags: 0,
      header: Buffer.from([afInet, 0, 0, 0]),
      attributes: [
        {
          type: pattern.tuple,
          value: [
            { type: tupleAddresses, value: [pattern.address] },
            { type: tupleProtocol, value: [{ type: protocolNumber, value: u8(udp) }, pattern.port] },
          ],
        },
        { type: filter, value: [{ type: pattern.filter, value: u32(pattern.parts) }] },
      ],
    },
    attempted,
    // Nothing matched; or a kernel before 5.8, which has no filters: there the entries end by their own timeout.
    accept: ["ENOENT", "EINVAL", "EOPNOTSUPP"],
  };
  netfilterSocket().do(request);
}

function addressBytes(address: string): Uint8Array {
  return Uint8Array.from(address.split(".").map(Number));
}
