import assert from "node:assert/strict";
import { test } from "node:test";
import { isFault } from "../../base/fault.ts";
import { InstanceSchema, RunStartSchema, StreamLogsRequestSchema } from "../../gen/croft/v1/instance_pb.ts";
import { decode, encode, queryToJson } from "./message.ts";

const query = (text: string) => queryToJson(RunStartSchema, new URLSearchParams(text));

test("query parameters reach lists, maps and fields of fields, by either name", () => {
  const json = query(
    "image=a&command=x&command=y&env.A=1&env.B.C=2&terminal.columns=80&read_only=true&capAdd=NET_ADMIN",
  );
  assert.deepEqual(json, {
    image: "a",
    command: ["x", "y"],
    env: { A: "1", "B.C": "2" },
    terminal: { columns: "80" },
    readOnly: true,
    capAdd: ["NET_ADMIN"],
  });
  assert.equal((decode(RunStartSchema, json, {}) as unknown as { terminal: { columns: number } }).terminal.columns, 80);
});

function readLogsQuery(text: string) {
  const json = queryToJson(StreamLogsRequestSchema, new URLSearchParams(text));
  return decode(StreamLogsRequestSchema, json, { instance: "web" });
}

test("times and numbers are read from text, and refused when they are none", () => {
  assert.ok(readLogsQuery("since=2026-01-02T03:04:05Z&tail=5"));
  assert.throws(
    () => readLogsQuery("since=yesterday"),
    (error) => isFault(error, "invalid"),
  );
  assert.throws(
    () => readLogsQuery("tail=many"),
    (error) => isFault(error, "invalid"),
  );
});

test("names of Object's own members are names like any other", () => {
  assert.throws(
    () => query("__proto__.polluted=1"),
    (error) => isFault(error, "invalid"),
  );
  assert.throws(
    () => query("constructor=1"),
    (error) => isFault(error, "invalid"),
  );
  query("env.__proto__=1");
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
});

test("an answer has its empty fields, and lacks optional ones that are not set", () => {
  const json = JSON.parse(encode(InstanceSchema, { name: "web" })) as Record<string, unknown>;
  assert.deepEqual([json["stack"], json["pid"], json["ports"], json["labels"]], ["", 0, [], {}]);
  assert.ok(!("exitCode" in json));
  assert.equal((JSON.parse(encode(InstanceSchema, { exitCode: 0 })) as Record<string, unknown>)["exitCode"], 0);
});
