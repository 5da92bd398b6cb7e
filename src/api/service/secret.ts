import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { SecretService } from "../../gen/croft/v1/resource_pb.ts";
import type { SecretFacts } from "../../secret/contract.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";

const defaultLength = 32;

export function secretService({ secrets }: Pick<Needs, "secrets">): Served {
  const describe = async (stack: string, name: string, call: Call) => {
    const facts = (await secrets.list(stack, call)).find((secret) => secret.name === name);
    if (facts !== undefined) return toMessage(facts);
    throw new Fault("not-found", `there is no secret ${stack}/${name}`, {
      hint: "croft secret ls shows those there are",
    });
  };
  return serve(SecretService, {
    async listSecrets({ stack }, call) {
      return { secrets: (await secrets.list(stack === "" ? undefined : stack, call)).map(toMessage) };
    },
    async setSecret({ stack, name, value }, call) {
      await secrets.put(stack, name, value, call);
      return await describe(stack, name, call);
    },
    async rotateSecret({ stack, name, length }, call) {
      await secrets.rotate(stack, name, length === 0 ? defaultLength : length, call);
      return await describe(stack, name, call);
    },
    async removeSecret({ stack, name }, call) {
      // Removing is idempotent in the store; a person who mistypes a name should hear of it.
      await describe(stack, name, call);
      await secrets.remove(stack, name, call);
      return {};
    },
  });
}

function toMessage({ createdMs, ...secret }: SecretFacts) {
  return { ...secret, created: timestampFromMs(createdMs) };
}
