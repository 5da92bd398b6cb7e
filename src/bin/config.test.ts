import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { homeBeneath, type Home } from "../base/home.ts";
import { sha256 } from "../base/id.ts";
import { readConfig } from "./config.ts";

const digest = sha256("a token");
const token = `[token.laptop]\ndigest = "${digest}"\n`;

function homeWith(settings: string, context: TestContext): Home {
  const folder = mkdtempSync(join(tmpdir(), "config."));
  context.after(() => rmSync(folder, { recursive: true }));
  const home = homeBeneath(folder);
  mkdirSync(home.etcDir, { recursive: true });
  writeFileSync(join(home.etcDir, "croftd.toml"), settings);
  return home;
}

test("settings are read, and none is needed", async (context) => {
  assert.deepEqual(await readConfig(homeWith("", context)), { subnetPool: "10.86.0.0/16" });
  const settings = `subnet-pool = "10.9.0.0/16"\n[listen]\naddress = "127.0.0.1:7443"\n${token}`;
  assert.deepEqual(await readConfig(homeWith(settings, context)), {
    subnetPool: "10.9.0.0/16",
    tcp: { host: "127.0.0.1", port: 7443, tokens: [{ name: "laptop", digest }] },
  });
});

test("what is wrong is refused by its name, also where nothing would come of it yet", async (context) => {
  const refused: readonly (readonly [settings: string, message: RegExp])[] = [
    ["foo = 1", /no setting "foo"/],
    ['subnet-pool = "10.0.0.0/33"', /subnet-pool is a subnet/],
    ['subnet-pool = "10.0.0.1/16"', /subnet-pool is a subnet/],
    ['[token.laptop]\ndigest = "abc"\n', /token\.laptop\.digest is/],
    [`[token.laptop]\ndigset = "${digest}"\n`, /no setting "token\.laptop\.digset"/],
    [`[listen]\nadress = "127.0.0.1:1"\n${token}`, /no setting "listen\.adress"/],
    [`[listen]\naddress = "0.0.0.0:7443"\n${token}`, /must not travel in the clear/],
    [`[listen]\naddress = "0.0.0.0:7443"\ntls-cert = "/x"\n${token}`, /go together/],
    ['[listen]\naddress = "127.0.0.1:7443"\n', /at least one \[token\.NAME\]/],
    ["[listen", /croftd\.toml/],
  ];
  for (const [settings, message] of refused) {
    await assert.rejects(readConfig(homeWith(settings, context)), { reason: "invalid", message }, settings);
  }
});
