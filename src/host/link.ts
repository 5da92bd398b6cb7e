import { isIPv4 } from "node:net";
import { Fault } from "../base/fault.ts";
import {
  type Attribute,
  decodeAttributes,
  encodeAttributes,
  type Message,
  NETLINK_ROUTE,
  NetlinkSocket,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  readText,
  type Received,
  type Request,
  text,
  u32,
  u8,
} from "./netlink.ts";

/**
 * Links, addresses and routes of one network namespace, by rtnetlink.
 *
 * Functions that end in `Request` only describe a change, so that a caller can have several done in one system call;
 * `RouteSocket` does them. Addresses are IPv4 in dotted text; a MAC is `02:1a:…`.
 */

export interface Link {
  readonly index: number;
  readonly name: string;
  /** `bridge`, `veth`, `tun`, …; absent for physical devices and loopback. */
  readonly kind?: string;
  /** Index of the bridge it is a port of. */
  readonly master?: number;
  readonly mtu: number;
  readonly mac: string;
  readonly up: boolean;
  readonly loopback: boolean;
  /** A free text for people and for us: whose link it is. */
  readonly alias?: string;
}

export interface LinkAddress {
  readonly index: number;
  readonly address: string;
  readonly prefixLength: number;
}

export interface Route {
  /** `0.0.0.0` with prefix length 0 for the default route. */
  readonly destination: string;
  readonly prefixLength: number;
  readonly gateway?: string;
  /** Index of the link it leads out by; absent for blackholes and routes with several hops. */
  readonly index?: number;
  readonly metric: number;
}

const rtmNewLink = 16;
const rtmDelLink = 17;
const rtmGetLink = 18;
const rtmSetLink = 19;
const rtmNewAddress = 20;
const rtmDelAddress = 21;
const rtmGetAddress = 22;
const rtmNewRoute = 24;
const rtmDelRoute = 25;
const rtmGetRoute = 26;

const iflaAddress = 1;
const iflaName = 3;
const iflaMtu = 4;
const iflaMaster = 10;
const iflaLinkInfo = 18;
const iflaAlias = 20;
const iflaAfSpec = 26;
const iflaNamespaceFd = 28;
const iflaExtMask = 29;
const infoKind = 1;
const infoData = 2;
const infoPortKind = 4;
const infoPortData = 5;
const bridgePortHairpin = 4;
const bridgePortFlush = 24;
const vethPeer = 1;
const inet6AddrGenMode = 8;

const iffUp = 0x1;
const iffLoopback = 0x8;
const afInet = 2;
const afInet6 = 10;
/** Statistics are a third of a link's message, and nobody here reads them. */
const skipStatistics = u32(1 << 3);

/** A socket for links, addresses and routes of the namespace it was opened in. */
export class RouteSocket implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE);

  do(...requests: readonly Request[]): void {
    this.#socket.doAll(requests);
  }

  links(): Link[] {
    const message = { type: rtmGetLink, flags: 0, header: linkHeader(0, 0, 0), attributes: [extMask] };
    return this.#socket.dump({ message, attempted: "list links" }).map(decodeLink);
  }

  link(name: string): Link | undefined {
    const attributes = [{ type: iflaName, value: text(name) }, extMask];
    const message = { type: rtmGetLink, flags: 0, header: linkHeader(0, 0, 0), attributes };
    const answer = this.#socket.ask({ message, attempted: `look at link ${name}`, accept: ["ENODEV"] });
    return answer === undefined ? undefined : decodeLink(answer);
  }

  /** IPv4 addresses. */
  addresses(): LinkAddress[] {
    const message = { type: rtmGetAddress, flags: 0, header: addressHeader(0, 0), attributes: [] };
    return this.#socket.dump({ message, attempted: "list addresses" }).map(decodeAddress);
  }

  /** IPv4 routes of the main table. */
  routes(): Route[] {
    const message = {
      type: rtmGetRoute,
      flags: 0,
      header: routeHeader({ type: 0, prefixLength: 0, scope: 0, protocol: 0 }),
      attributes: [],
    };
    const mainTable = 254;
    return this.#socket
      .dump({ message, attempted: "list routes" })
      .filter((received) => received.payload.readUInt8(4) === mainTable)
      .map(decodeRoute);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** A bridge that is up, without IPv6 addresses of its own. `mac` fixed: otherwise it changes as ports come and go. */
export function createBridgeRequests(bridge: {
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
  readonly alias: string;
}): Request[] {
  const attempted = `create bridge ${bridge.name}`;
  const attributes = [
    { type: iflaName, value: text(bridge.name) },
    { type: iflaAddress, value: macBytes(bridge.mac) },
    { type: iflaMtu, value: u32(bridge.mtu) },
    { type: iflaLinkInfo, value: [{ type: infoKind, value: text("bridge") }] },
  ];
  return [
    { message: newLink(attributes, linkHeader(0, 0, 0)), attempted },
    ...startLinkRequests(bridge.name, bridge.alias),
  ];
}

/**
 * A pair of links: one end here, a port of the bridge `master` and up; the other named `peer.name` and up in the
 * namespace that `peer.namespaceFd` refers to.
 */
export function createVethRequests(veth: {
  readonly name: string;
  readonly master: number;
  readonly mtu: number;
  readonly alias: string;
  readonly peer: { readonly name: string; readonly mac: string; readonly namespaceFd: number };
}): Request[] {
  const peer = Buffer.concat([
    linkHeader(0, 0, 0),
    encodeAttributes([
      { type: iflaName, value: text(veth.peer.name) },
      { type: iflaAddress, value: macBytes(veth.peer.mac) },
      { type: iflaMtu, value: u32(veth.mtu) },
      { type: iflaNamespaceFd, value: u32(veth.peer.namespaceFd) },
    ]),
  ]);
  const attributes = [
    { type: iflaName, value: text(veth.name) },
    { type: iflaMtu, value: u32(veth.mtu) },
    { type: iflaMaster, value: u32(veth.master) },
    {
      type: iflaLinkInfo,
      value: [
        { type: infoKind, value: text("veth") },
        { type: infoData, value: [{ type: vethPeer, value: peer }] },
      ],
    },
  ];
  return [
    { message: newLink(attributes, linkHeader(0, 0, 0)), attempted: `create link ${veth.name}` },
    ...startLinkRequests(veth.name, veth.alias),
    reflectRequest(veth.name),
  ];
}

/** Without a link-local address: the kernel handles the start before the address mode when both are in one message. */
export function startLinkRequests(name: string, alias: string): Request[] {
  return [setLinkRequest(name, { alias, ipv6: false }), setLinkRequest(name, { up: true })];
}

/**
 * Lets a port of a bridge send back where a frame came from. Where the kernel passes bridged packets by the rules for IPv4
 * (br_netfilter), one that is translated to its sender's own address never leaves the bridge, which would drop it.
 */
export function reflectRequest(name: string): Request {
  return bridgePortRequest(name, `set up bridge port ${name}`, [{ type: bridgePortHairpin, value: u8(1) }]);
}

/** Has a bridge forget which hardware addresses were behind the port. Success also when there is no such link. */
export function forgetBehindRequest(name: string): Request {
  const flag = new Uint8Array(0);
  const request = bridgePortRequest(name, `flush bridge port ${name}`, [{ type: bridgePortFlush, value: flag }]);
  // EINVAL, EOPNOTSUPP: a link, but not a port of a bridge.
  return { ...request, accept: ["ENODEV", "EINVAL", "EOPNOTSUPP"] };
}

function bridgePortRequest(name: string, attempted: string, settings: readonly Attribute[]): Request {
  const attributes: Attribute[] = [
    { type: iflaName, value: text(name) },
    {
      type: iflaLinkInfo,
      value: [
        { type: infoPortKind, value: text("bridge") },
        { type: infoPortData, value: settings },
      ],
    },
  ];
  return { message: { type: rtmNewLink, flags: 0, header: linkHeader(0, 0, 0), attributes }, attempted };
}

/** Changes a link. `ipv6: false` keeps the kernel from giving it a link-local address. */
export function setLinkRequest(
  name: string,
  change: {
    readonly up?: boolean;
    readonly master?: number;
    readonly mtu?: number;
    readonly mac?: string;
    readonly alias?: string;
    readonly ipv6?: false;
  },
): Request {
  const attributes: Attribute[] = [{ type: iflaName, value: text(name) }];
  if (change.master !== undefined) attributes.push({ type: iflaMaster, value: u32(change.master) });
  if (change.mtu !== undefined) attributes.push({ type: iflaMtu, value: u32(change.mtu) });
  if (change.mac !== undefined) attributes.push({ type: iflaAddress, value: macBytes(change.mac) });
  if (change.alias !== undefined) attributes.push({ type: iflaAlias, value: text(change.alias) });
  if (change.ipv6 === false) {
    const addrGenModeNone = u8(1);
    attributes.push({
      type: iflaAfSpec,
      value: [{ type: afInet6, value: [{ type: inet6AddrGenMode, value: addrGenModeNone }] }],
    });
  }
  const flags = change.up === true ? iffUp : 0;
  const header = linkHeader(0, flags, change.up === undefined ? 0 : iffUp);
  return { message: { type: rtmSetLink, flags: 0, header, attributes }, attempted: `set up link ${name}` };
}

/** Removing what is not there is success. */
export function removeLinkRequest(name: string): Request {
  const attributes = [{ type: iflaName, value: text(name) }];
  const message = { type: rtmDelLink, flags: 0, header: linkHeader(0, 0, 0), attributes };
  return { message, attempted: `remove link ${name}`, accept: ["ENODEV"] };
}

/** Having it already is success. */
export function addAddressRequest(index: number, address: string, prefixLength: number): Request {
  const broadcast = addressBytes(address);
  broadcast.writeUInt32BE((broadcast.readUInt32BE(0) | (0xffff_ffff >>> prefixLength)) >>> 0);
  const attributes = [
    { type: ifaLocal, value: addressBytes(address) },
    { type: ifaAddress, value: addressBytes(address) },
    ...(prefixLength < 31 ? [{ type: ifaBroadcast, value: broadcast }] : []),
  ];
  const message = {
    type: rtmNewAddress,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    header: addressHeader(index, prefixLength),
    attributes,
  };
  return { message, attempted: `give address ${address}/${prefixLength}`, accept: ["EEXIST"] };
}

/** Removing what is not there is success. */
export function removeAddressRequest(index: number, address: string, prefixLength: number): Request {
  const attributes = [{ type: ifaLocal, value: addressBytes(address) }];
  const message = { type: rtmDelAddress, flags: 0, header: addressHeader(index, prefixLength), attributes };
  return { message, attempted: `take address ${address}/${prefixLength} away`, accept: ["EADDRNOTAVAIL", "ENODEV"] };
}

/** The default route by `gateway`, in place of another one. */
export function setDefaultRouteRequest(gateway: string, index: number): Request {
  const unicast = 1;
  const universe = 0;
  const protocolStatic = 4;
  const message = {
    type: rtmNewRoute,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    header: routeHeader({ type: unicast, prefixLength: 0, scope: universe, protocol: protocolStatic }),
    attributes: [
      { type: rtaGateway, value: addressBytes(gateway) },
      { type: rtaOutIndex, value: u32(index) },
    ],
  };
  return { message, attempted: `set the default route by ${gateway}` };
}

/** Takes one default route away, as it was listed. Removing what is not there is success. */
export function removeDefaultRouteRequest(route: Route): Request {
  const anyScope = 255;
  const attributes: Attribute[] = [{ type: rtaPriority, value: u32(route.metric) }];
  if (route.gateway !== undefined) attributes.push({ type: rtaGateway, value: addressBytes(route.gateway) });
  if (route.index !== undefined) attributes.push({ type: rtaOutIndex, value: u32(route.index) });
  const header = routeHeader({ type: 0, prefixLength: 0, scope: anyScope, protocol: 0 });
  const message = { type: rtmDelRoute, flags: 0, header, attributes };
  return { message, attempted: `remove the default route by ${route.gateway ?? "a link"}`, accept: ["ESRCH"] };
}

const ifaAddress = 1;
const ifaLocal = 2;
const ifaBroadcast = 4;
const rtaDestination = 1;
const rtaOutIndex = 4;
const rtaGateway = 5;
const rtaPriority = 6;
const extMask: Attribute = { type: iflaExtMask, value: skipStatistics };

function newLink(attributes: readonly Attribute[], header: Buffer): Message {
  return { type: rtmNewLink, flags: NLM_F_CREATE | NLM_F_EXCL, header, attributes };
}

/** `struct ifinfomsg` */
function linkHeader(index: number, flags: number, change: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(index, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(change, 12);
  return header;
}

/** `struct ifaddrmsg` */
function addressHeader(index: number, prefixLength: number): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(afInet, 0);
  header.writeUInt8(prefixLength, 1);
  header.writeUInt32LE(index, 4);
  return header;
}

/** `struct rtmsg` */
function routeHeader(route: { type: number; prefixLength: number; scope: number; protocol: number }): Buffer {
  const mainTable = 254;
  return Buffer.from([
    afInet,
    route.prefixLength,
    0,
    0,
    mainTable,
    route.protocol,
    route.scope,
    route.type,
    0,
    0,
    0,
    0,
  ]);
}

function decodeLink(received: Received): Link {
  const { payload } = received;
  const attributes = decodeAttributes(payload.subarray(16));
  const flags = payload.readUInt32LE(8);
  const info = attributes.get(iflaLinkInfo);
  const kind = info === undefined ? undefined : decodeAttributes(info).get(infoKind);
  const master = attributes.get(iflaMaster)?.readUInt32LE(0);
  const alias = attributes.get(iflaAlias);
  const mac = attributes.get(iflaAddress) ?? Buffer.alloc(0);
  return {
    index: payload.readInt32LE(4),
    name: readText(attributes.get(iflaName) ?? Buffer.alloc(0)),
    mtu: attributes.get(iflaMtu)?.readUInt32LE(0) ?? 0,
    mac: [...mac].map((byte) => byte.toString(16).padStart(2, "0")).join(":"),
    up: (flags & iffUp) !== 0,
    loopback: (flags & iffLoopback) !== 0,
    ...(kind === undefined ? {} : { kind: readText(kind) }),
    ...(master === undefined ? {} : { master }),
    ...(alias === undefined ? {} : { alias: readText(alias) }),
  };
}

function decodeAddress(received: Received): LinkAddress {
  const { payload } = received;
  const attributes = decodeAttributes(payload.subarray(8));
  const address = attributes.get(ifaLocal) ?? attributes.get(ifaAddress);
  return {
    index: payload.readUInt32LE(4),
    address: address === undefined ? "0.0.0.0" : [...address].join("."),
    prefixLength: payload.readUInt8(1),
  };
}

function decodeRoute(received: Received): Route {
  const attributes = decodeAttributes(received.payload.subarray(12));
  const destination = attributes.get(rtaDestination);
  const gateway = attributes.get(rtaGateway);
  const index = attributes.get(rtaOutIndex)?.readUInt32LE(0);
  return {
    destination: destination === undefined ? "0.0.0.0" : [...destination].join("."),
    prefixLength: received.payload.readUInt8(1),
    metric: attributes.get(rtaPriority)?.readUInt32LE(0) ?? 0,
    ...(gateway === undefined ? {} : { gateway: [...gateway].join(".") }),
    ...(index === undefined ? {} : { index }),
  };
}

function addressBytes(address: string): Buffer {
  if (!isIPv4(address)) throw new Fault("invalid", `"${address}" is not an IPv4 address`);
  return Buffer.from(address.split(".").map(Number));
}

function macBytes(mac: string): Buffer {
  return Buffer.from(mac.replaceAll(":", ""), "hex");
}
