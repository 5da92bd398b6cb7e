import { dlopen, toString } from "node:ffi";
import { Fault } from "../base/fault.ts";
import { decodeAttributes, netfilterSocket } from "./netlink.ts";

/**
 * nftables by its own library, in this process: a ruleset text in nft's language, applied as one transaction.
 *
 * Synchronous like netlink, and for the same reason; a change of a few elements takes a third of a millisecond, where
 * starting `nft` takes ten. The library has no way to be used wrongly from two namespaces: a context belongs to the
 * network namespace it was made in, which is why there is one context for this process's own.
 */

type Library = ReturnType<typeof load>;

let loaded: { readonly library: Library; readonly context: bigint } | undefined;

function load() {
  try {
    return dlopen("libnftables.so.1", {
      nft_ctx_new: { arguments: ["u32"], return: "pointer" },
      nft_ctx_buffer_output: { arguments: ["pointer"], return: "i32" },
      nft_ctx_buffer_error: { arguments: ["pointer"], return: "i32" },
      nft_ctx_get_output_buffer: { arguments: ["pointer"], return: "pointer" },
      nft_ctx_get_error_buffer: { arguments: ["pointer"], return: "pointer" },
      nft_run_cmd_from_buffer: { arguments: ["pointer", "string"], return: "i32" },
    }).functions;
  } catch (error) {
    throw new Fault("unsupported", "nftables is not installed: libnftables.so.1 could not be loaded", {
      hint: "install it: apt-get install nftables",
      cause: error,
    });
  }
}

function nftables(): { readonly library: Library; readonly context: bigint } {
  if (loaded !== undefined) return loaded;
  const library = load();
  const context = library.nft_ctx_new(0);
  library.nft_ctx_buffer_output(context);
  library.nft_ctx_buffer_error(context);
  loaded = { library, context };
  return loaded;
}

/**
 * Has nft run `commands`: all of it or, when any part is refused, none. Returns what it printed (for `list`).
 * Throws `failed` with nft's own words, which name the line.
 */
export function runNft(commands: string, attempted: string): string {
  const { library, context } = nftables();
  const result = library.nft_run_cmd_from_buffer(context, commands);
  // Reading a buffer empties it, so both are read whatever the result.
  const output = toString(library.nft_ctx_get_output_buffer(context)) ?? "";
  const words = toString(library.nft_ctx_get_error_buffer(context)) ?? "";
  if (result !== 0) throw new Fault("failed", `${attempted}: ${words.trim() || "nft refuses it"}`);
  return output;
}

/**
 * A number that grows with every change that anyone makes to the nftables rules of this network namespace. As long as
 * it is what it was after our own last change, our table is what we made it: no need to read it back.
 */
export function nftGeneration(): number {
  const subsystem = 10;
  const getGeneration = 16;
  const generationId = 1;
  // `struct nfgenmsg`: family, version, resource id.
  const message = {
    type: (subsystem << 8) | getGeneration,
    flags: 0,
    header: Buffer.alloc(4),
    attributes: [],
  };
  const answer = netfilterSocket().ask({ message, attempted: "ask for the generation of the nftables rules" });
  const bytes = answer === undefined ? undefined : decodeAttributes(answer.payload.subarray(4)).get(generationId);
  if (bytes === undefined) throw new Fault("failed", "ask for the generation of the nftables rules: no answer");
  return bytes.readUInt32BE(0);
}
