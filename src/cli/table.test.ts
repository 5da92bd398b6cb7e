import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { painter } from "./paint.ts";
import { renderTable, type Column } from "./table.ts";
import { displayWidth, truncate } from "./width.ts";

interface Row {
  readonly name: string;
  readonly image: string;
  readonly size: number;
  readonly note?: string;
}

const columns: readonly Column<Row>[] = [
  { title: "NAME", cell: ({ name }) => name, yields: 1 },
  { title: "IMAGE", cell: ({ image }) => image, yields: 2 },
  { title: "SIZE", cell: ({ size }) => ({ text: `${size}`, tint: "good" }), align: "right" },
  { title: "NOTE", cell: ({ note = "" }) => note, optional: true, yields: 3 },
];
const plain = painter(false);

test("columns are aligned, numbers to the right, and lines end where their text ends", () => {
  const rows = [
    { name: "web-1", image: "nginx:1.27", size: 7 },
    { name: "db", image: "postgres", size: 1024 },
  ];
  assert.equal(
    renderTable(columns, rows, { paint: plain, columns: Infinity }),
    "NAME   IMAGE       SIZE\nweb-1  nginx:1.27     7\ndb     postgres    1024\n",
  );
});

test("without rows there is nothing, not even a head", () => {
  assert.equal(renderTable(columns, [], { paint: plain, columns: 80 }), "");
});

test("a narrow terminal takes from the column that yields most, and only then from the next", () => {
  const rows = [{ name: "a-rather-long-name", image: "registry.example/some/image:latest", size: 1 }];
  assert.equal(
    renderTable(columns, rows, { paint: plain, columns: 40 }).split("\n")[1],
    "a-rather-long-name  registry.exam…     1",
  );
  assert.equal(renderTable(columns, rows, { paint: plain, columns: 24 }).split("\n")[1], "a-rather-…  regis…     1");
});

test("an optional column appears as soon as one row has something to say", () => {
  const rows = [
    { name: "a", image: "i", size: 1 },
    { name: "b", image: "i", size: 1, note: "restarted once" },
  ];
  assert.match(renderTable(columns, rows, { paint: plain, columns: 80 }), /NOTE\n.*\n.*restarted once\n$/);
});

test("colour changes nothing about the widths", () => {
  const rows = [{ name: "a", image: "i", size: 12 }];
  const colored = renderTable(columns, rows, { paint: painter(true), columns: 80 });
  assert.ok(colored.includes("\u001b[32m12\u001b[39m"), colored);
  // oxlint-disable-next-line no-control-regex -- the colours are taken off again
  assert.equal(colored.replaceAll(/\u001b\[\d+m/g, ""), renderTable(columns, rows, { paint: plain, columns: 80 }));
});

test("what images and logs say cannot move the cursor or colour the terminal", () => {
  const rows = [{ name: "\u001b[2Jgone\n", image: "a\tb\u009b31m", size: 1 }];
  const [, line = ""] = renderTable(columns, rows, { paint: plain, columns: Infinity }).split("\n");
  // oxlint-disable-next-line no-control-regex -- they are what must not be there
  assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f]/);
});

test("a table fits whenever its unyielding columns do", () => {
  const row = fc.record({ name: fc.string(), image: fc.string({ unit: "grapheme" }), size: fc.nat() });
  fc.assert(
    fc.property(fc.array(row, { minLength: 1, maxLength: 5 }), fc.integer({ min: 40, max: 120 }), (rows, width) => {
      const table = renderTable(columns, rows, { paint: plain, columns: width });
      for (const line of table.trimEnd().split("\n")) assert.ok(displayWidth(line) <= width, line);
    }),
  );
});

test("wide characters count as two cells, and are never cut in half", () => {
  assert.equal(displayWidth("漢字"), 4);
  assert.equal(truncate("漢字", 3), "漢…");
  assert.equal(truncate("e\u0301tude", 6), "e\u0301tude");
});
