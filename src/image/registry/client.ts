import { type Call, withDeadline } from "../../base/call.ts";
import { Fault, isFault } from "../../base/fault.ts";
import { type Digest, sha256 } from "../../base/id.ts";
import type { Credentials } from "../contract.ts";
import { maxManifestBytes, parseObject } from "../manifest.ts";
import { shown } from "../shown.ts";
import { Authorizer } from "./authorization.ts";
import { followable, registryOrigin } from "./endpoint.ts";
import { type Answer, type Request, header, readBody, send } from "./transport.ts";

/** A small document may take so long in all, retries apart: a server that drips a byte now and then is given up. */
const documentMs = 60_000;
const maxAttempts = 5;
const maxRedirects = 5;
/** A server may ask us to wait; beyond this we would rather tell the person. */
const maxRetryAfterMs = 30_000;

/** What a person may do at one repository: read it, or read and write. */
export type Access = "pull" | "pull,push";

export interface FetchedDocument {
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly contentType: string | undefined;
}

/**
 * One repository of one registry, spoken to as the OCI distribution specification says.
 *
 * Requests are retried with growing pauses when the server is busy or the connection breaks, logged in when the server
 * asks, and redirected only to where `endpoint.ts` allows; credentials stay with the registry. Nothing is believed:
 * every document's digest is checked here, every layer's where it is unpacked.
 */
export class RepositoryClient {
  readonly origin: URL;
  readonly #domain: string;
  readonly #path: string;
  readonly #access: Access;
  readonly #authorizer: Authorizer;

  constructor(domain: string, path: string, access: Access, credentials: () => Promise<Credentials | undefined>) {
    this.origin = registryOrigin(domain);
    this.#domain = domain;
    this.#path = path;
    this.#access = access;
    this.#authorizer = new Authorizer(this.origin, domain, credentials);
  }

  /** A manifest or index by tag or digest, checked against the digest when there is one. */
  async fetchManifest(selector: string, accept: readonly string[], call: Call): Promise<FetchedDocument> {
    const subject = `manifest ${selector} of ${this.#domain}/${this.#path}`;
    const url = this.#url(`manifests/${selector}`);
    const { bytes, answer } = await this.#document(url, { accept: accept.join(", ") }, maxManifestBytes, subject, call);
    const digest = sha256(bytes);
    const said = header(answer, "docker-content-digest");
    const wanted = selector.startsWith("sha256:") ? selector : said;
    // A server may leave the digest out, or name it by an algorithm that we do not speak.
    if (wanted !== undefined && wanted.startsWith("sha256:") && wanted !== digest) {
      throw new Fault("corrupt", `${subject}: its content has the digest ${digest}, not ${wanted}`);
    }
    const contentType = header(answer, "content-type")?.split(";")[0]?.trim().toLowerCase();
    if (contentType !== undefined && contentType.startsWith("text/")) {
      throw new Fault("corrupt", `${subject}: the server sent ${contentType}, not a manifest`, {
        hint: `see whether ${this.origin.host} is a registry at all, and not a login page or a proxy`,
      });
    }
    return { bytes, digest, contentType };
  }

  /** A small blob, a configuration, checked against its digest and size. */
  async fetchBlob(digest: Digest, sizeBytes: number, maxBytes: number, call: Call): Promise<Buffer> {
    const subject = `blob ${digest} of ${this.#domain}/${this.#path}`;
    if (sizeBytes > maxBytes) throw new Fault("exhausted", `${subject} is larger than ${maxBytes} bytes`);
    const { bytes } = await this.#document(this.#url(`blobs/${digest}`), {}, sizeBytes, subject, call);
    if (sha256(bytes) !== digest) {
      throw new Fault("corrupt", `${subject}: its content has the digest ${sha256(bytes)}`);
    }
    return bytes;
  }

  /** For whoever fetches a blob by itself: its address, and the headers that open it. */
  blobSource(digest: Digest, call: Call): { url: string; headers: () => Promise<Readonly<Record<string, string>>> } {
    return { url: this.#url(`blobs/${digest}`).href, headers: () => this.#authorizer.headers(this.#scope(), call) };
  }

  /** Asks whether the registry lets us in at all; for `login`, with an empty path. */
  async check(call: Call): Promise<void> {
    await this.#document(new URL("/v2/", this.origin), {}, maxManifestBytes, `registry ${this.#domain}`, call);
  }

  async hasBlob(digest: Digest, call: Call): Promise<boolean> {
    return await this.#exists(this.#url(`blobs/${digest}`), {}, call);
  }

  async hasManifest(digest: Digest, accept: string, call: Call): Promise<boolean> {
    return await this.#exists(this.#url(`manifests/${digest}`), { accept }, call);
  }

  /**
   * Uploads a blob whole. `open` gives its bytes anew for each attempt. The registry checks the digest once more.
   */
  async uploadBlob(
    digest: Digest,
    sizeBytes: number,
    open: () => AsyncIterable<Uint8Array>,
    call: Call,
  ): Promise<void> {
    const subject = `blob ${digest} to ${this.#domain}/${this.#path}`;
    await this.#retrying(`upload ${subject}`, call, async () => {
      const begun = await this.#authorized(
        { method: "POST", url: this.#url("blobs/uploads/"), headers: emptyBody },
        call,
      );
      await this.#expect(begun, [202], `begin to upload ${subject}`, call);
      const location = followable(header(begun, "location") ?? "", this.#url("blobs/uploads/"), this.origin, "upload");
      location.searchParams.set("digest", digest);
      const headers = { "content-type": "application/octet-stream", "content-length": String(sizeBytes) };
      const sent = await this.#once({ method: "PUT", url: location, headers, body: open() }, call);
      await this.#expect(sent, [201, 204], `upload ${subject}`, call);
    });
  }

  async uploadManifest(selector: string, type: string, bytes: Buffer, call: Call): Promise<void> {
    const subject = `manifest ${selector} to ${this.#domain}/${this.#path}`;
    const headers = { "content-type": type, "content-length": String(bytes.length) };
    await this.#retrying(`upload ${subject}`, call, async () => {
      const url = this.#url(`manifests/${selector}`);
      const answer = await this.#authorized({ method: "PUT", url, headers, body: bytes }, call);
      await this.#expect(answer, [200, 201, 202, 204], `upload ${subject}`, call);
    });
  }

  /** Lets the registry take a blob from another of its repositories; false when it would rather be sent it. */
  async mountBlob(digest: Digest, fromPath: string, call: Call): Promise<boolean> {
    const url = this.#url("blobs/uploads/");
    url.searchParams.set("mount", digest);
    url.searchParams.set("from", fromPath);
    const answer = await this.#authorized({ method: "POST", url, headers: emptyBody }, call, this.#scope(fromPath));
    // 202 begins an ordinary upload instead; it is left to expire. Any refusal only means: send it.
    await discard(answer, call);
    return answer.status === 201;
  }

  #url(rest: string): URL {
    return new URL(`/v2/${this.#path}/${rest}`, this.origin);
  }

  /** What to ask a token for; nothing when it is only about logging in. */
  #scope(alsoFrom?: string): string {
    if (this.#path === "") return "";
    const own = `repository:${this.#path}:${this.#access}`;
    return alsoFrom === undefined ? own : `${own} repository:${alsoFrom}:pull`;
  }

  async #document(
    url: URL,
    headers: Readonly<Record<string, string>>,
    maxBytes: number,
    subject: string,
    call: Call,
  ): Promise<{ bytes: Buffer; answer: Answer }> {
    return await this.#retrying(`fetch ${subject}`, call, async () => {
      using bounded = withDeadline(call, documentMs, `fetch ${subject}`);
      const answer = await this.#followed({ method: "GET", url, headers }, bounded);
      await this.#expect(answer, [200], `fetch ${subject}`, bounded);
      return { bytes: await readBody(answer, maxBytes, subject, bounded), answer };
    });
  }

  async #exists(url: URL, headers: Readonly<Record<string, string>>, call: Call): Promise<boolean> {
    const attempted = `look for ${url.pathname} at ${this.#domain}`;
    return await this.#retrying(attempted, call, async () => {
      using bounded = withDeadline(call, documentMs, attempted);
      const answer = await this.#followed({ method: "HEAD", url, headers }, bounded);
      if (answer.status === 404) {
        await discard(answer, bounded);
        return false;
      }
      await this.#expect(answer, [200], attempted, bounded);
      await discard(answer, bounded);
      return true;
    });
  }

  /** Follows redirects. Credentials go to the registry's own origin only. */
  async #followed(request: Request, call: Call): Promise<Answer> {
    let answer = await this.#authorized(request, call);
    let { url } = request;
    for (let redirects = 0; [301, 302, 303, 307, 308].includes(answer.status); redirects += 1) {
      if (redirects === maxRedirects) {
        answer.body.destroy();
        throw new Fault("failed", `registry ${this.#domain} redirects more than ${maxRedirects} times`);
      }
      const target = header(answer, "location") ?? "";
      await discard(answer, call);
      url = followable(target, url, this.origin, "redirect");
      answer = await this.#once({ ...request, url }, call);
    }
    return answer;
  }

  /** Sends with the credentials there are, and once more when the server says which it wants. */
  async #authorized(request: Request, call: Call, scope: string = this.#scope()): Promise<Answer> {
    const first = await this.#once(request, call, scope);
    if (first.status !== 401) return first;
    const challenge = header(first, "www-authenticate") ?? "";
    await discard(first, call);
    await this.#authorizer.answer(challenge, scope, call);
    const second = await this.#once(request, call, scope);
    if (second.status !== 401) return second;
    second.body.destroy();
    throw this.#authorizer.refused();
  }

  async #once(request: Request, call: Call, scope: string = this.#scope()): Promise<Answer> {
    const own = request.url.origin === this.origin.origin;
    const headers = own ? { ...request.headers, ...(await this.#authorizer.headers(scope, call)) } : request.headers;
    return await send({ ...request, headers }, call);
  }

  /** Repeats what may succeed another time. `action` must be repeatable. */
  async #retrying<Value>(attempted: string, call: Call, action: () => Promise<Value>): Promise<Value> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await action();
      } catch (error) {
        const retry = error instanceof Fault ? error.detail["retry"] : undefined;
        if (retry === undefined || attempt === maxAttempts || call.signal.aborted) throw error;
        const pauseMs = retry === "soon" ? 250 * 2 ** (attempt - 1) : Number(retry);
        call.report({ topic: attempted, state: `trying again (${attempt} of ${maxAttempts - 1})` });
        await call.clock.sleep(pauseMs, call.signal);
      }
    }
  }

  /** Throws unless the answer has one of these statuses. Reads the body of an error, which may say why. */
  async #expect(answer: Answer, statuses: readonly number[], attempted: string, call: Call): Promise<void> {
    const { status } = answer;
    if (statuses.includes(status)) {
      if (status !== 200) await discard(answer, call);
      return;
    }
    const said = await errorText(answer, call);
    const message = `${attempted}: the registry answered ${status}${said === "" ? "" : `, ${said}`}`;
    if (status === 404) throw new Fault("not-found", message, { hint: "check the name and the tag" });
    if (status === 401) throw this.#authorizer.refused();
    if (status === 403)
      throw new Fault("forbidden", message, { hint: `log in as someone who may: croft login ${this.#domain}` });
    if (status === 429 || status === 408 || status >= 500) {
      const hint = status === 429 ? "the registry limits how often it may be asked; log in or wait" : "try again later";
      throw new Fault("unavailable", message, { hint, detail: { retry: retryAfter(answer, call) } });
    }
    throw new Fault("failed", message);
  }
}

const emptyBody = { "content-length": "0" };

/** Reads what is left of a small answer, so that its connection can be used again. */
async function discard(answer: Answer, call: Call): Promise<void> {
  try {
    await readBody(answer, 2 ** 16, "the rest of an answer", call);
  } catch (error) {
    if (isFault(error, "cancelled") || isFault(error, "timeout")) throw error;
    answer.body.destroy();
  }
}

/** `soon`, or the milliseconds for which the server asks. */
function retryAfter(answer: Answer, call: Call): string {
  const text = header(answer, "retry-after");
  if (text === undefined) return "soon";
  const waitMs = /^[0-9]{1,6}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - call.clock.nowMs();
  if (!Number.isFinite(waitMs) || waitMs < 0) return "soon";
  return String(Math.min(waitMs, maxRetryAfterMs));
}

/** The registry's own words, `MANIFEST_UNKNOWN: manifest unknown`; empty when it has none that are worth showing. */
async function errorText(answer: Answer, call: Call): Promise<string> {
  try {
    const document = parseObject(await readBody(answer, 2 ** 16, "the error", call), 2 ** 16, "the error");
    const errors = Array.isArray(document["errors"]) ? (document["errors"] as readonly unknown[]) : [];
    const texts = errors.slice(0, 3).map((entry) => {
      const { code, message } = (entry ?? {}) as { code?: unknown; message?: unknown };
      return [code, message].filter((part) => typeof part === "string").join(": ");
    });
    return shown(texts.join("; "), 300);
  } catch (error) {
    if (isFault(error, "cancelled") || isFault(error, "timeout")) throw error;
    return "";
  }
}
