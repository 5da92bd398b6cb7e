/** An IPv4 network by its first and last address, as numbers. */
export interface Network {
  readonly first: number;
  readonly last: number;
  /** As it is written when it is written well: `10.20.0.0/24`. */
  readonly text: string;
}

/** Dotted IPv4 as a number, or undefined. Numbers with leading zeros are refused: some programs read them as octal. */
export function parseAddress(text: string): number | undefined {
  const match = /^(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})$/.exec(text);
  if (match === null) return undefined;
  let address = 0;
  for (const part of match.slice(1)) {
    if (Number(part) > 255) return undefined;
    address = address * 256 + Number(part);
  }
  return address;
}

/** A network that instances can live in, or what is wrong with it and, on the next line, what would be right. */
export function parseNetwork(text: string): Network | { readonly wrong: string } {
  const [addressText = "", lengthText = "", ...more] = text.split("/");
  const address = parseAddress(addressText);
  if (address === undefined || !/^[0-9]{1,2}$/.test(lengthText) || more.length > 0) {
    return { wrong: `"${text}" is not an IPv4 network\nwrite an address and a prefix length, such as 10.20.0.0/24` };
  }
  const length = Number(lengthText);
  if (length < 16 || length > 29) {
    return { wrong: `/${length} is not a size a network can have here\nwrite a prefix length from 16 to 29` };
  }
  const size = 2 ** (32 - length);
  const first = address - (address % size);
  const right = `${formatAddress(first)}/${length}`;
  if (first !== address) {
    return { wrong: `${addressText} is an address within the network, not its first\nwrite "${right}"` };
  }
  if (!privateNetworks.some((range) => first >= range.first && first + size - 1 <= range.last)) {
    return {
      wrong: `"${text}" is not a private network\nuse a part of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10`,
    };
  }
  return { first, last: first + size - 1, text: right };
}

export function overlap(left: Network, right: Network): boolean {
  return left.first <= right.last && right.first <= left.last;
}

function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((bits) => Math.floor(address / 2 ** bits) % 256).join(".");
}

/** RFC 1918 and the shared space of RFC 6598: others' addresses would become unreachable from the host. */
const privateNetworks: readonly { readonly first: number; readonly last: number }[] = [
  { first: 0x0a000000, last: 0x0affffff },
  { first: 0xac100000, last: 0xac1fffff },
  { first: 0xc0a80000, last: 0xc0a8ffff },
  { first: 0x64400000, last: 0x647fffff },
];
