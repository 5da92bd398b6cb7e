import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../base/fault.ts";
import { sha256 } from "../base/id.ts";
import { type Index, chooseManifest, mediaType } from "./manifest.ts";
import { formatPlatform, parsePlatform, platformOf, suitability } from "./platform.ts";

function indexOf(...platforms: readonly (string | undefined)[]): Index {
  const manifests = platforms.map((text) => {
    const [os = "", architecture = "", variant] = (text ?? "").split("/");
    return {
      mediaType: mediaType.manifest,
      digest: sha256(text ?? "none"),
      sizeBytes: 1,
      urls: [],
      annotations: {},
      ...(text === undefined ? {} : { platform: platformOf(os, architecture, variant) }),
    };
  });
  return { kind: "index", mediaType: mediaType.index, manifests };
}

function chosen(index: Index, wanted: string): string | undefined {
  const { digest } = chooseManifest(index, parsePlatform(wanted), "image");
  const platform = index.manifests.find((entry) => entry.digest === digest)?.platform;
  return platform === undefined ? undefined : formatPlatform(platform);
}

test("the entry for the wanted platform is chosen, whatever the order", () => {
  const all = ["linux/amd64", "linux/arm64/v8", "linux/arm/v7", "windows/amd64", "unknown/unknown"];
  assert.equal(chosen(indexOf(...all), "linux/amd64"), "linux/amd64");
  assert.equal(chosen(indexOf(...all.toReversed()), "linux/amd64"), "linux/amd64");
  assert.equal(chosen(indexOf(...all), "linux/arm64"), "linux/arm64/v8");
  assert.equal(chosen(indexOf(...all), "aarch64"), "linux/arm64/v8");
});

test("of several levels of a processor the highest that it runs is chosen", () => {
  const arms = indexOf("linux/arm/v5", "linux/arm/v7", "linux/arm/v6");
  assert.equal(chosen(arms, "linux/arm/v7"), "linux/arm/v7");
  assert.equal(chosen(arms, "linux/arm/v6"), "linux/arm/v6");
  assert.equal(chosen(arms, "linux/arm/v8"), "linux/arm/v7");
  assert.equal(chosen(indexOf("linux/amd64/v3", "linux/amd64"), "linux/amd64"), "linux/amd64");
  assert.equal(chosen(indexOf("linux/amd64", "linux/amd64/v3"), "linux/amd64/v4"), "linux/amd64/v3");
});

test("an image for a newer processor only is not taken", () => {
  for (const [offered, wanted] of [
    ["linux/arm/v7", "linux/arm/v6"],
    ["linux/amd64/v2", "linux/amd64"],
    ["linux/arm64", "linux/amd64"],
    ["windows/amd64", "linux/amd64"],
  ] as const) {
    assert.throws(
      () => chosen(indexOf(offered), wanted),
      (error) => isFault(error, "unsupported") && error.hint?.includes(offered) === true,
      offered,
    );
  }
});

test("an index of one image need not say for what it is", () => {
  assert.equal(chosen(indexOf(undefined), "linux/amd64"), undefined);
  assert.throws(
    () => chosen(indexOf(undefined, undefined), "linux/amd64"),
    (error) => isFault(error, "unsupported"),
  );
});

test("platforms are read as people write them, and other systems are refused", () => {
  assert.equal(formatPlatform(parsePlatform("arm64")), "linux/arm64");
  assert.equal(formatPlatform(parsePlatform("linux/armhf")), "linux/arm/v7");
  assert.equal(formatPlatform(parsePlatform("Linux/x86_64")), "linux/amd64");
  assert.throws(
    () => parsePlatform("windows/amd64"),
    (error) => isFault(error, "unsupported"),
  );
  for (const text of ["", "linux/", "linux/amd64/v1/x", "linux/a b", "constructor/__proto__/"]) {
    assert.throws(
      () => parsePlatform(text),
      (error) => isFault(error, "invalid"),
      text,
    );
  }
});

test("names that mean something to JavaScript mean nothing here", () => {
  for (const name of ["constructor", "__proto__", "toString"]) {
    const platform = platformOf("linux", name, undefined);
    assert.equal(platform.architecture, name);
    assert.equal(suitability(platform, parsePlatform("linux/amd64")), 0);
  }
});
