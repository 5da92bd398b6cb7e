import {
  createFileRegistry,
  fromBinary,
  type DescMessage,
  type DescMethod,
  type DescService,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { bindingOf, type Binding } from "../rest/binding.ts";
import { Comments } from "./comment.ts";

/** What every document about the API is made from: Croft's own services and messages, with their comments. */
export interface Model {
  readonly comments: Comments;
  readonly services: readonly ServiceModel[];
  /** All messages that some method reaches, by name, without those of other packages. */
  readonly messages: readonly DescMessage[];
}

export interface ServiceModel {
  readonly service: DescService;
  /** `instances`: the first word of its routes. */
  readonly noun: string;
  readonly bindings: readonly Binding[];
}

const ownPackage = "croft.v1";

/** Reads a serialized `google.protobuf.FileDescriptorSet` with source information. */
export function readModel(descriptorSet: Uint8Array): Model {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptorSet));
  const files = [...registry.files].filter((file) => file.proto.package === ownPackage);
  const services = files
    .flatMap((file) => file.services)
    .map((service) => {
      const bindings = service.methods.map(bindingOf);
      const [, first] = bindings[0]?.segments ?? [];
      if (first === undefined || !("literal" in first))
        throw new Error(`${service.typeName}: no noun in its first route`);
      return { service, noun: first.literal, bindings };
    })
    .sort((left, right) => (left.noun < right.noun ? -1 : 1));
  const methods = services.flatMap(({ service }) => service.methods);
  return { comments: new Comments(files), services, messages: reachable(methods.flatMap((m) => [m.input, m.output])) };
}

/** The messages of this package that `roots` hold, directly or not, `roots` included, by name. */
export function reachable(roots: readonly DescMessage[]): DescMessage[] {
  const seen = new Set<DescMessage>();
  const visit = (message: DescMessage): void => {
    if (seen.has(message) || message.file.proto.package !== ownPackage) return;
    seen.add(message);
    for (const field of message.fields) if (field.message !== undefined) visit(field.message);
  };
  roots.forEach(visit);
  return [...seen].sort((left, right) => (left.name < right.name ? -1 : 1));
}

/** `ListInstances` of the noun `instances` is `list`; `ListProcesses` stays `listProcesses`. */
export function shortName(method: DescMethod, service: DescService): string {
  const noun = service.name.replace(/Service$/, "");
  const short = method.name.replace(new RegExp(`^([A-Z][a-z]+)${noun}s?$`), "$1");
  return short.charAt(0).toLowerCase() + short.slice(1);
}
