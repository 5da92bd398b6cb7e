import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Credentials } from "../contract.ts";
import { parseObject } from "../manifest.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import { followable } from "./endpoint.ts";
import { readBody, send } from "./transport.ts";

const maxTokenBytes = 2 ** 20;
const tokenMs = 30_000;
/** A token that says nothing of its life lives so long, by docker's specification. */
const defaultLifeMs = 60_000;
/** Renewed this long before its end, so that none dies on its way. */
const renewBeforeMs = 10_000;

/** How the server last asked to be convinced. */
type Method = { readonly kind: "basic" } | { readonly kind: "bearer"; readonly realm: URL; readonly service: string };

/** Convinces one registry, by basic authentication or by tokens from the server that it names. */
export class Authorizer {
  readonly #origin: URL;
  readonly #domain: string;
  readonly #credentials: () => Promise<Credentials | undefined>;
  readonly #tokens = new Map<string, { readonly token: string; readonly untilMs: number }>();
  #method: Method | undefined;
  #found: Promise<Credentials | undefined> | undefined;

  constructor(origin: URL, domain: string, credentials: () => Promise<Credentials | undefined>) {
    this.#origin = origin;
    this.#domain = domain;
    this.#credentials = credentials;
  }

  /** The headers for a request within `scope`; none until the server has asked. Renews a token that is about to end. */
  async headers(scope: string, call: Call): Promise<Readonly<Record<string, string>>> {
    const method = this.#method;
    if (method === undefined) return {};
    if (method.kind === "basic") {
      const credentials = await this.#find();
      return credentials === undefined ? {} : { authorization: basic(credentials) };
    }
    const known = this.#tokens.get(scope);
    if (known !== undefined && known.untilMs > call.clock.monotonicMs())
      return { authorization: `Bearer ${known.token}` };
    return { authorization: `Bearer ${await this.#fetchToken(method, scope, call)}` };
  }

  /** Takes up a challenge. Throws an `unauthenticated` Fault when it cannot be met. */
  async answer(header: string, scope: string, call: Call): Promise<void> {
    const challenges = parseChallenges(header);
    const bearer = challenges.find(({ scheme, parameters }) => scheme === "bearer" && parameters.has("realm"));
    if (bearer !== undefined) {
      const method = this.#bearer(bearer);
      this.#method = method;
      // The server just refused what we had for this scope.
      this.#tokens.delete(scope);
      await this.#fetchToken(method, scope, call);
      return;
    }
    if (!challenges.some(({ scheme }) => scheme === "basic")) {
      const schemes = challenges.map(({ scheme }) => scheme).join(", ") || "nothing";
      throw new Fault("unauthenticated", `registry ${this.#domain} asks to log in by ${schemes.slice(0, 100)}`, {
        hint: "only Basic and Bearer are spoken here",
      });
    }
    if ((await this.#find()) === undefined) throw this.refused();
    this.#method = { kind: "basic" };
  }

  /** What to say when the server does not let us in. */
  refused(): Fault {
    return new Fault("unauthenticated", `registry ${this.#domain} does not let us in`, {
      hint: `log in: croft login ${this.#domain}; or the image does not exist`,
    });
  }

  #bearer(challenge: Challenge): Method & { kind: "bearer" } {
    const realm = followable(challenge.parameters.get("realm") ?? "", this.#origin, this.#origin, "token server");
    return { kind: "bearer", realm, service: challenge.parameters.get("service") ?? "" };
  }

  async #fetchToken(method: Method & { kind: "bearer" }, scope: string, call: Call): Promise<string> {
    const subject = `token for ${this.#domain}`;
    using bounded = withDeadline(call, tokenMs, `fetch a ${subject}`);
    const url = new URL(method.realm);
    if (method.service !== "") url.searchParams.set("service", method.service);
    for (const part of scope.split(" ").filter((text) => text !== "")) url.searchParams.append("scope", part);
    const credentials = await this.#find();
    const headers = credentials === undefined ? {} : { authorization: basic(credentials) };
    // No redirect is followed: the credentials are for this server alone.
    const answer = await send({ method: "GET", url, headers }, bounded);
    if (answer.status === 401 || answer.status === 403) {
      answer.body.destroy();
      throw this.refused();
    }
    if (answer.status !== 200) {
      answer.body.destroy();
      const retry = answer.status === 429 || answer.status >= 500;
      throw new Fault("unavailable", `fetch a ${subject}: ${url.host} answered ${answer.status}`, {
        detail: retry ? { retry: "soon" } : {},
      });
    }
    const document = parseObject(await readBody(answer, maxTokenBytes, subject, bounded), maxTokenBytes, subject);
    const token = document["token"] ?? document["access_token"];
    // What cannot stand in a header is no token.
    if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
      throw new Fault("corrupt", `fetch a ${subject}: ${url.host} sent none`);
    }
    const life = document["expires_in"];
    const lifeMs = typeof life === "number" && life > 0 ? Math.max(life * 1000, defaultLifeMs) : defaultLifeMs;
    this.#tokens.set(scope, { token, untilMs: call.clock.monotonicMs() + lifeMs - renewBeforeMs });
    return token;
  }

  #find(): Promise<Credentials | undefined> {
    this.#found ??= this.#credentials();
    return this.#found;
  }
}

function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}
