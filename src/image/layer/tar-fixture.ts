import { tarBlockBytes } from "./tar-header.ts";

/** For tests: tars made by hand, right and wrong in ways that no tar program would write. */
export interface FixtureHeader {
  readonly name?: string;
  readonly type?: string;
  readonly linkName?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeSec?: number;
  /** What the header says; default: the length of the data. */
  readonly sizeBytes?: number;
  readonly magic?: string;
  readonly prefix?: string;
  readonly deviceMajor?: number;
  readonly deviceMinor?: number;
  /** Changes the finished block before its checksum is computed. */
  readonly patch?: (block: Buffer) => void;
}

export const ustarMagic = "ustar\x0000";
export const gnuMagic = "ustar  \0";

/** A header and its data, filled up to whole blocks. */
export function entry(header: FixtureHeader, data: string | Buffer = ""): Buffer {
  const bytes = Buffer.from(data);
  const padding = Buffer.alloc((tarBlockBytes - (bytes.length % tarBlockBytes)) % tarBlockBytes);
  return Buffer.concat([headerBlock({ sizeBytes: bytes.length, ...header }), bytes, padding]);
}

export function headerBlock(header: FixtureHeader): Buffer {
  const block = Buffer.alloc(tarBlockBytes);
  const octal = (value: number, offset: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, offset, "latin1");
  };
  block.write(header.name ?? "file", 0, 100, "latin1");
  octal(header.mode ?? 0o644, 100, 8);
  octal(header.uid ?? 0, 108, 8);
  octal(header.gid ?? 0, 116, 8);
  octal(header.sizeBytes ?? 0, 124, 12);
  octal(header.mtimeSec ?? 0, 136, 12);
  block.write(header.type ?? "0", 156, 1, "latin1");
  block.write(header.linkName ?? "", 157, 100, "latin1");
  block.write(header.magic ?? ustarMagic, 257, 8, "latin1");
  octal(header.deviceMajor ?? 0, 329, 8);
  octal(header.deviceMinor ?? 0, 337, 8);
  block.write(header.prefix ?? "", 345, 155, "latin1");
  header.patch?.(block);
  return withChecksum(block);
}

export function withChecksum(block: Buffer): Buffer {
  block.write("        ", 148, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** Records of a PAX header, with their true lengths. */
export function paxRecords(records: readonly (readonly [key: string, value: string])[]): Buffer {
  return Buffer.concat(
    records.map(([key, value]) => {
      const rest = ` ${key}=${value}\n`;
      let length = rest.length + 1;
      while (`${length}${rest}`.length !== length) length += 1;
      return Buffer.from(`${length}${rest}`, "latin1");
    }),
  );
}

export function pax(records: readonly (readonly [key: string, value: string])[], type = "x"): Buffer {
  return entry({ name: "PaxHeaders/x", type }, paxRecords(records));
}

export function tar(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat([...parts, Buffer.alloc(2 * tarBlockBytes)]);
}
