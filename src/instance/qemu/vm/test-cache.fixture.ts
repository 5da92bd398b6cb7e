import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where guests that take long to make are kept: for the whole run of the tests, whose runner deletes it at the end. */
export function testCache(): string {
  return join(process.env["CROFT_TEST_DIR"] ?? join(tmpdir(), "croft-test-cache"), "cache");
}
