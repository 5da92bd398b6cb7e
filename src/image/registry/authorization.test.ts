import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Call, backgroundCall, systemClock } from "../../base/call.ts";
import { isFault } from "../../base/fault.ts";
import { homeBeneath } from "../../base/home.ts";
import type { Credentials } from "../contract.ts";
import { ImageStore } from "../images.ts";
import { CredentialStore } from "./credential.ts";
import { type Asked, type Lie, LyingRegistry } from "./lying-registry-fixture.ts";
import { sampleImage } from "./sample-image-fixture.ts";

const call: Call = { ...backgroundCall(), clock: { ...systemClock, sleep: () => Promise.resolve() } };
const image = sampleImage(["first", "second"]);
const ada: Credentials = { username: "ada", password: "s3cret:with colon" };
const basic = `Basic ${Buffer.from(`${ada.username}:${ada.password}`).toString("base64")}`;

let rootDir = "";
before(async () => {
  rootDir = await mkdtemp(join(tmpdir(), "croft-auth-"));
});
after(async () => await rm(rootDir, { recursive: true, force: true }));

async function freshStore(): Promise<ImageStore> {
  const home = homeBeneath(await mkdtemp(join(rootDir, "home-")));
  return await ImageStore.open(home, systemClock, new CredentialStore(home.etcDir, join(home.etcDir, "docker")));
}

function json(response: ServerResponse, status: number, value: unknown): true {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
  return true;
}

function challenge(response: ServerResponse, header: string): true {
  response.setHeader("www-authenticate", header);
  return json(response, 401, { errors: [{ code: "UNAUTHORIZED", message: "authentication required" }] });
}

const asksBasic: Lie = ({ headers }, response) =>
  headers.authorization === basic ? false : challenge(response, 'Basic realm="registry"');

async function pulling(lie: Lie, credentials?: Credentials): Promise<{ error: unknown; asked: readonly Asked[] }> {
  await using registry = await LyingRegistry.start(image, lie);
  await using store = await freshStore();
  const options = credentials === undefined ? {} : { credentials };
  const error = await store.pull(registry.reference, options, call).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return { error, asked: registry.asked };
}

test("basic credentials are sent once the registry asks for them, and not before", async () => {
  const { error, asked } = await pulling(asksBasic, ada);
  assert.equal(error, undefined);
  assert.equal(asked[0]?.headers.authorization, undefined);
  assert.ok(asked.slice(1).every(({ headers }) => headers.authorization === basic));
});

test("without credentials, or with wrong ones, the registry does not let us in; it is asked twice at most", async () => {
  for (const credentials of [undefined, { ...ada, password: "wrong" }]) {
    const { error, asked } = await pulling(asksBasic, credentials);
    assert.ok(isFault(error, "unauthenticated"), String(error));
    assert.match(error.hint ?? "", /croft login/);
    assert.ok(asked.length <= 2);
  }
});

/** A registry with its token server at `/token`; a token is good for `uses` requests. */
function tokenLie(origin: () => string, options: { anonymous: boolean; uses: number }): Lie {
  let left = 0;
  return ({ path, headers }, response) => {
    if (path.startsWith("/token")) {
      const query = new URL(path, "http://x").searchParams;
      assert.equal(query.get("service"), "the registry");
      assert.equal(query.get("scope"), "repository:sample/image:pull");
      if (!options.anonymous && headers.authorization !== basic) return challenge(response, "Basic");
      left = options.uses;
      return json(response, 200, { token: "t0ken", expires_in: 300 });
    }
    if (headers.authorization === "Bearer t0ken" && left > 0) {
      left -= 1;
      return false;
    }
    return challenge(response, `Bearer realm="${origin()}/token",service="the registry",scope="x"`);
  };
}

test("a token is fetched, with credentials or anonymously, and used for all that follows", async () => {
  for (const anonymous of [true, false]) {
    let origin = "";
    await using registry = await LyingRegistry.start(
      image,
      tokenLie(() => origin, { anonymous, uses: 100 }),
    );
    ({ origin } = registry);
    await using store = await freshStore();
    await store.pull(registry.reference, anonymous ? {} : { credentials: ada }, call);
    assert.equal(registry.asked.filter(({ path }) => path.startsWith("/token")).length, 1);
    // Only the token server saw the password.
    const others = registry.asked.filter(({ path }) => !path.startsWith("/token"));
    assert.ok(others.every(({ headers }) => headers.authorization !== basic));
  }
});

test("a registry that refuses its own tokens is given up", async () => {
  let origin = "";
  await using registry = await LyingRegistry.start(
    image,
    tokenLie(() => origin, { anonymous: true, uses: 0 }),
  );
  ({ origin } = registry);
  await using store = await freshStore();
  await assert.rejects(store.pull(registry.reference, {}, call), (error) => isFault(error, "unauthenticated"));
  assert.ok(registry.asked.length <= 4);
});

/** A registry whose token server sends this. */
function answering(token: unknown): Lie {
  return ({ path, headers }, response) => {
    if (path.startsWith("/token")) return json(response, 200, token);
    return challenge(response, `Bearer realm="http://${headers.host}/token"`);
  };
}

test("tokens that are none, and token servers elsewhere without TLS, are refused", async () => {
  for (const token of [{}, { token: "" }, { token: "a\r\nb: c" }, { token: 3 }, []]) {
    const { error } = await pulling(answering(token));
    assert.ok(isFault(error, "corrupt"), JSON.stringify(token));
  }
  const { error } = await pulling(
    (_, response) => challenge(response, 'Bearer realm="http://example.invalid/token"'),
    ada,
  );
  assert.ok(isFault(error, "hostile"), String(error));
  const unknown = await pulling((_, response) => challenge(response, "Negotiate"), ada);
  assert.ok(isFault(unknown.error, "unauthenticated"), String(unknown.error));
});

test("credentials do not follow a redirect to another server", async () => {
  await using other = await LyingRegistry.start(image);
  const { error, asked } = await pulling((request, response) => {
    if (asksBasic(request, response)) return true;
    response.writeHead(307, { location: `${other.origin}${request.path}` }).end();
    return true;
  }, ada);
  assert.equal(error, undefined);
  assert.ok(asked.length > 3 && other.asked.length === 4);
  assert.ok(other.asked.every(({ headers }) => headers.authorization === undefined));
});

test("redirects without end are given up", async () => {
  const { error, asked } = await pulling(({ path }, response) => {
    response.writeHead(302, { location: `${path}x` }).end();
    return true;
  });
  assert.ok(isFault(error, "failed"), String(error));
  assert.equal(asked.length, 6);
});

test("login keeps what the registry accepts, and only that; logout forgets it", async () => {
  await using registry = await LyingRegistry.start(image, asksBasic);
  await using store = await freshStore();
  const domain = registry.reference.slice(0, registry.reference.indexOf("/"));
  const wrong = store.login(domain, { ...ada, password: "wrong" }, call);
  await assert.rejects(wrong, (error) => isFault(error, "unauthenticated"));
  await assert.rejects(store.pull(registry.reference, {}, call), (error) => isFault(error, "unauthenticated"));
  await store.login(domain, ada, call);
  await store.pull(registry.reference, {}, call);
  await store.logout(domain, call);
  await assert.rejects(store.pull(registry.reference, {}, call), (error) => isFault(error, "unauthenticated"));
  await assert.rejects(store.login("not a registry", ada, call), (error) => isFault(error, "invalid"));
});
