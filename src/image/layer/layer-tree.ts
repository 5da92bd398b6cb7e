import { Fault } from "../../base/fault.ts";
import { encodeDevice, maxRootXattrsBytes, type Attributes } from "../erofs/format.ts";
import type { Directory, Leaf, Node } from "../erofs/tree.ts";
import type { ErofsWriter } from "../erofs/writer.ts";
import { isStorableXattr, measureXattrs, noXattrs, type Xattrs } from "../erofs/xattr.ts";
import { splitPath } from "./entry-path.ts";
import type { LayerLimits } from "./limit.ts";
import type { TarEntry, TarSink } from "./tar-reader.ts";

const whiteoutPrefix = ".wh.";
const opaqueMark = ".wh..wh..opq";
/** What AUFS kept in a layer for itself; such entries mean nothing to anybody else. */
const aufsPrefix = ".wh..wh.";

/** overlayfs's own attributes. A layer that brought them could redirect directories or replace data of other layers. */
const overlayXattr = /^(trusted|user)\.overlay\./;

/** A parent directory that the layer does not mention, as container engines make it. */
const impliedAttributes: Attributes = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };
const whiteoutAttributes: Attributes = { mode: 0, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };

const maxDeviceMajor = 0xfff;
const maxDeviceMinor = 0xfffff;
/** The last id means "none" to Linux. */
const maxId = 0xfffffffe;
/** EROFS reads a link's target within one block; Linux allows 4095 bytes. */
const maxTargetBytes = 4095;
/** Of a name in a message: one that is refused for its length may have a MiB. */
const maxShownBytes = 300;

/**
 * Turns the entries of a layer into an EROFS tree. The tree is data in memory: no path of the layer is ever given to the
 * kernel, no symbolic link is ever followed. Where a name comes twice, the last entry wins, and a directory keeps its
 * children. Whiteouts become what overlayfs reads: `.wh.NAME` a character device 0/0, the opaque mark an attribute.
 */
export class LayerTree implements TarSink {
  readonly root: Directory = {
    type: "directory",
    children: new Map(),
    attributes: impliedAttributes,
    xattrs: noXattrs,
  };
  readonly #writer: ErofsWriter;
  readonly #limits: LayerLimits;
  /** Names that lower layers may have and this one hides, by directory. Which of them remain is known at the end. */
  readonly #hidden = new Map<Directory, Set<string>>();
  readonly #opaque = new Set<Directory>();
  #entries = 0;
  #nameBytes = 0;
  /** Where the file whose data is coming will be put; undefined when the data is skipped. */
  #openFile: { readonly parent: Directory; readonly name: string } | undefined;

  constructor(writer: ErofsWriter, limits: LayerLimits) {
    this.#writer = writer;
    this.#limits = limits;
  }

  /** Entries of the tar so far, and directories that they implied. */
  get entries(): number {
    return this.#entries;
  }

  begin(entry: TarEntry): void {
    this.#countEntry();
    const components = splitPath(entry.path, this.#limits.maxDepth);
    const name = components.pop();
    if (components.some((component) => component.startsWith(aufsPrefix))) return;
    if (name === undefined) {
      this.#changeRoot(entry);
    } else if (name.startsWith(whiteoutPrefix)) {
      this.#addWhiteout(components, name);
    } else {
      this.#add(entry, this.#directoryAt(components), name);
    }
  }

  data(bytes: Buffer): void {
    if (this.#openFile !== undefined) this.#writer.write(bytes);
  }

  end(): void {
    if (this.#openFile === undefined) return;
    const { parent, name } = this.#openFile;
    this.#openFile = undefined;
    parent.children.set(name, this.#writer.endFile());
  }

  /**
   * Puts the whiteouts in and returns the complete tree. By the OCI specification a whiteout hides what lower layers have,
   * never what its own layer brings: there a directory becomes opaque and anything else needs no whiteout.
   */
  finish(): Directory {
    for (const [directory, names] of this.#hidden) {
      for (const name of names) {
        const child = directory.children.get(name);
        if (child === undefined) {
          const whiteout = this.#writer.special("character", whiteoutAttributes, noXattrs, encodeDevice(0, 0));
          directory.children.set(name, whiteout);
        } else if (child.type === "directory") this.#opaque.add(child);
      }
    }
    for (const directory of this.#opaque) {
      directory.xattrs = new Map([...directory.xattrs, ["trusted.overlay.opaque", "y"]]);
      this.#checkXattrs(directory);
    }
    return this.root;
  }

  #changeRoot(entry: TarEntry): void {
    if (entry.type !== "directory") throw new Fault("hostile", `it is the root of the layer, but a ${entry.type}`);
    this.root.attributes = attributesOf(entry);
    this.#setXattrs(this.root, entry);
  }

  #addWhiteout(components: readonly string[], name: string): void {
    if (name === opaqueMark) {
      this.#opaque.add(this.#directoryAt(components));
      return;
    }
    if (name.startsWith(aufsPrefix)) return;
    const hidden = name.slice(whiteoutPrefix.length);
    if (hidden === "" || hidden === "." || hidden === "..") {
      throw new Fault("hostile", `it is a whiteout of ${JSON.stringify(hidden)}, which no directory can hold`);
    }
    const parent = this.#directoryAt(components);
    const names = this.#hidden.get(parent) ?? new Set();
    names.add(hidden);
    this.#hidden.set(parent, names);
    this.#countName(hidden);
  }

  #add(entry: TarEntry, parent: Directory, name: string): void {
    if (entry.type === "directory") {
      this.#addDirectory(entry, parent, name);
      return;
    }
    this.#countName(name);
    if (entry.type === "link") {
      parent.children.set(name, this.#linkTarget(entry, parent.children.get(name)));
      return;
    }
    const attributes = attributesOf(entry);
    const xattrs = storableXattrs(entry);
    if (entry.type === "file") {
      this.#checkRoom(entry.sizeBytes);
      // Whatever had the name goes at once: the entry wins even where a link to its own name follows.
      parent.children.delete(name);
      this.#writer.beginFile(attributes, xattrs, entry.sizeBytes, entry.extents);
      this.#openFile = { parent, name };
      return;
    }
    parent.children.set(name, this.#leaf(entry, attributes, xattrs));
  }

  #leaf(entry: TarEntry, attributes: Attributes, xattrs: Xattrs): Leaf {
    this.#checkRoom(0);
    switch (entry.type) {
      case "symlink":
        if (entry.linkPath === "" || entry.linkPath.length > maxTargetBytes || entry.linkPath.includes("\0")) {
          throw new Fault("corrupt", `its target of ${entry.linkPath.length} bytes is not one that a link can have`);
        }
        return this.#writer.symlink({ ...attributes, mode: 0o777 }, xattrs, entry.linkPath);
      case "character":
      case "block":
        return this.#writer.special(entry.type, attributes, xattrs, deviceOf(entry));
      case "fifo":
        return this.#writer.special("fifo", attributes, xattrs, 0);
      default:
        throw new Fault("bug", `a ${entry.type} is not a leaf without data`);
    }
  }

  #addDirectory(entry: TarEntry, parent: Directory, name: string): void {
    const existing = parent.children.get(name);
    const directory = existing?.type === "directory" ? existing : this.#makeDirectory(parent, name);
    directory.attributes = attributesOf(entry);
    this.#setXattrs(directory, entry);
  }

  #linkTarget(entry: TarEntry, replaced: Node | undefined): Leaf {
    const components = splitPath(entry.linkPath, this.#limits.maxDepth);
    const target = this.#nodeAt(components);
    const shown = showName(entry.linkPath);
    if (target === undefined) {
      throw new Fault("hostile", `it is a hard link to ${shown}, which this layer does not have before it`);
    }
    if (target.type === "directory") throw new Fault("hostile", `it is a hard link to ${shown}, which is a directory`);
    if (target === replaced) throw new Fault("corrupt", `it is a hard link to ${shown}, which is itself`);
    return target;
  }

  #nodeAt(components: readonly string[]): Node | undefined {
    let node: Node = this.root;
    for (const component of components) {
      const child: Node | undefined = node.type === "directory" ? node.children.get(component) : undefined;
      if (child === undefined) return undefined;
      node = child;
    }
    return node;
  }

  /** The directory at `components`, made where the layer has not mentioned it. */
  #directoryAt(components: readonly string[]): Directory {
    let directory = this.root;
    for (const component of components) {
      if (component.startsWith(whiteoutPrefix)) {
        throw new Fault("hostile", `it lies beneath ${showName(component)}, which is a whiteout`);
      }
      const child = directory.children.get(component);
      if (child === undefined) {
        this.#countEntry();
        directory = this.#makeDirectory(directory, component);
      } else if (child.type === "directory") {
        directory = child;
      } else {
        const what = child.type === "symlink" ? "symbolic link, which is never followed" : child.type;
        throw new Fault("hostile", `it lies beneath ${showName(component)}, a ${what}`);
      }
    }
    return directory;
  }

  #makeDirectory(parent: Directory, name: string): Directory {
    this.#countName(name);
    const made: Directory = {
      type: "directory",
      children: new Map(),
      attributes: impliedAttributes,
      xattrs: noXattrs,
    };
    parent.children.set(name, made);
    return made;
  }

  #setXattrs(directory: Directory, entry: TarEntry): void {
    directory.xattrs = storableXattrs(entry);
    this.#checkXattrs(directory);
    this.#countNameBytes(measureXattrs(directory.xattrs) ?? 0);
  }

  #checkXattrs(directory: Directory): void {
    const bytes = measureXattrs(directory.xattrs);
    if (bytes === undefined) throw tooManyXattrs();
    if (directory === this.root && bytes > maxRootXattrsBytes) {
      throw new Fault("exhausted", `the root's extended attributes take ${bytes} bytes of ${maxRootXattrsBytes}`);
    }
  }

  #countEntry(): void {
    this.#entries += 1;
    if (this.#entries > this.#limits.maxEntries) {
      throw new Fault("exhausted", `the layer has more than ${this.#limits.maxEntries} entries`);
    }
  }

  #countName(name: string): void {
    this.#countNameBytes(name.length);
  }

  #countNameBytes(bytes: number): void {
    this.#nameBytes += bytes;
    if (this.#nameBytes > this.#limits.maxNameBytes) {
      throw new Fault("exhausted", `the layer's names take more than ${this.#limits.maxNameBytes} bytes`);
    }
  }

  /** Holes count as well, since they take addresses; `sizeBytes` is checked alone first, as the sum of lies may overflow. */
  #checkRoom(sizeBytes: number): void {
    const limitBytes = this.#limits.maxUnpackedBytes;
    if (sizeBytes > limitBytes || this.#writer.position > limitBytes) {
      throw new Fault("exhausted", `it makes the layer larger than ${limitBytes} bytes`);
    }
  }
}

function attributesOf(entry: TarEntry): Attributes {
  const { uid, gid, mode, mtimeSec, mtimeNsec } = entry;
  if (uid < 0 || uid > maxId || gid < 0 || gid > maxId) {
    throw new Fault("corrupt", `its owner ${uid}:${gid} is outside of what Linux knows`);
  }
  return { mode, uid, gid, mtimeSec, mtimeNsec };
}

function deviceOf(entry: TarEntry): number {
  const { deviceMajor, deviceMinor } = entry;
  const known = deviceMajor >= 0 && deviceMajor <= maxDeviceMajor && deviceMinor >= 0 && deviceMinor <= maxDeviceMinor;
  if (!known)
    throw new Fault("corrupt", `its device number ${deviceMajor}:${deviceMinor} is outside of what Linux knows`);
  return encodeDevice(deviceMajor, deviceMinor);
}

/** What of an entry's extended attributes a kernel would take, as other engines too leave out what it would not. */
function storableXattrs(entry: TarEntry): Xattrs {
  if (entry.xattrs.size === 0) return noXattrs;
  const storable = new Map([...entry.xattrs].filter(([name]) => isStorableXattr(name) && !overlayXattr.test(name)));
  if (measureXattrs(storable) === undefined) throw tooManyXattrs();
  return storable;
}

function tooManyXattrs(): Fault {
  return new Fault("exhausted", "its extended attributes are larger than an inode can carry");
}

/** A byte string as people read it, in quotes; a long one is cut off. */
export function showName(bytes: string): string {
  return JSON.stringify(Buffer.from(bytes.slice(0, maxShownBytes), "latin1").toString("utf8"));
}
