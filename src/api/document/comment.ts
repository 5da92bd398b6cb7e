import type { DescField, DescFile, DescMessage, DescMethod, DescService } from "@bufbuild/protobuf";

type Commented = DescService | DescMethod | DescMessage | DescField;

/**
 * The comments of the `.proto` files, by descriptor. Only descriptors that were built with source information have any;
 * generated code leaves it out, which is why documents are made when the code is, not by the daemon.
 */
export class Comments {
  readonly #byProto = new Map<object, string>();

  constructor(files: Iterable<DescFile>) {
    for (const file of files) this.#read(file);
  }

  /** The comment before `desc`, or beside it; empty when there is none. Line breaks are as written. */
  of(desc: Commented): string {
    return this.#byProto.get(desc.proto) ?? "";
  }

  #read(file: DescFile): void {
    const byPath = new Map<string, string>();
    for (const location of file.proto.sourceCodeInfo?.location ?? []) {
      const text = (location.leadingComments || location.trailingComments).trim().replace(/\n +/g, "\n");
      if (text !== "") byPath.set(location.path.join("."), text);
    }
    const keep = (proto: object, path: string): void => {
      const text = byPath.get(path);
      if (text !== undefined) this.#byProto.set(proto, text);
    };
    // Field numbers of FileDescriptorProto and its parts, which source locations are made of.
    file.proto.service.forEach((service, at) => {
      keep(service, `6.${at}`);
      service.method.forEach((method, methodAt) => keep(method, `6.${at}.2.${methodAt}`));
    });
    file.proto.messageType.forEach((message, at) => {
      keep(message, `4.${at}`);
      message.field.forEach((field, fieldAt) => keep(field, `4.${at}.2.${fieldAt}`));
    });
  }
}
