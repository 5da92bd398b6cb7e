import assert from "node:assert/strict";
import { test } from "node:test";
import { backgroundCall, systemClock } from "../base/call.ts";
import { isFault } from "../base/fault.ts";
import { instanceId } from "../base/id.ts";
import type { DiskFacet, DiskKey, DiskSpec } from "./contract.ts";

/** The facet of a fresh pool, an image of the library that disks begin as, and the way to take all of it away again. */
export interface DisksUnderTest {
  readonly disks: DiskFacet;
  readonly base: NonNullable<DiskSpec["base"]>;
  /** What a guest sees of it. */
  readonly baseBytes: number;
  /** Where a file may be made. */
  readonly exportPath: string;
  dispose(): Promise<void>;
}

/** What every pool with disks keeps. What guests read and write is tested beside each driver. */
export function diskContract(name: string, make: () => Promise<DisksUnderTest>): void {
  const call = backgroundCall();
  const root: DiskKey = { id: instanceId("shop", "files", 1, "0123abcd"), name: "root" };
  const data: DiskKey = { ...root, name: "data" };
  const other: DiskKey = { ...root, id: instanceId("shop", "files", 2, "0123abcd") };
  const gibibyte = 2 ** 30;

  const behaviour = (what: string, body: (under: DisksUnderTest) => Promise<void>): void => {
    void test(`disks ${name}: ${what}`, async () => {
      const under = await make();
      try {
        await body(under);
      } finally {
        await under.dispose();
      }
    });
  };

  const sizesOf = async ({ disks }: DisksUnderTest): Promise<Record<string, number>> => {
    const listed = await disks.listDisks(call);
    return Object.fromEntries(listed.map((disk) => [`${disk.name} ${disk.id}`, disk.sizeBytes]));
  };
  behaviour("a disk is made of its image, attached and removed, each as often as one likes", async (under) => {
    const { disks, base, baseBytes } = under;
    const disk = await disks.attachDisk({ ...root, base }, call);
    assert.deepEqual(disk.backing, [base.path]);
    assert.deepEqual(await disks.attachDisk({ ...root, base }, call), disk);
    assert.deepEqual(await sizesOf(under), { [word(root)]: baseBytes });
    await disks.removeDisk(root.id, root.name, call);
    await disks.removeDisk(root.id, root.name, call);
    assert.deepEqual(await sizesOf(under), {});
  });

  behaviour("a blank disk needs a size, and reads from no other file", async (under) => {
    await assert.rejects(under.disks.attachDisk(data, call), (error) => isFault(error, "invalid"));
    assert.deepEqual(await sizesOf(under), {});
    const disk = await under.disks.attachDisk({ ...data, sizeBytes: 10 * gibibyte }, call);
    assert.deepEqual([disk.format, disk.backing], ["qcow2", []]);
    assert.deepEqual(await sizesOf(under), { [word(data)]: 10 * gibibyte });
  });

  behaviour("disks are apart, by their instance and by their name", async (under) => {
    const { disks, base } = under;
    const made = [
      await disks.attachDisk({ ...root, base }, call),
      await disks.attachDisk({ ...data, sizeBytes: gibibyte }, call),
      await disks.attachDisk({ ...other, base }, call),
    ];
    assert.equal(new Set(made.map(({ path }) => path)).size, 3);
    await disks.removeDisk(root.id, root.name, call);
    assert.deepEqual(Object.keys(await sizesOf(under)).sort(), [word(data), word(other)].sort());
  });

  behaviour("a disk grows, and becomes no smaller than it is or than its image", async (under) => {
    const { disks, base, baseBytes } = under;
    const refused = (sizeBytes: number): Promise<void> =>
      assert.rejects(disks.attachDisk({ ...root, base, sizeBytes }, call), (error) => isFault(error, "precondition"));
    await refused(baseBytes / 2);
    assert.deepEqual(await sizesOf(under), {});
    const disk = await disks.attachDisk({ ...root, base, sizeBytes: 4 * gibibyte }, call);
    await disks.attachDisk({ ...root, base, sizeBytes: 8 * gibibyte }, call);
    await refused(4 * gibibyte);
    assert.deepEqual(await sizesOf(under), { [word(root)]: 8 * gibibyte });
    // Who says no size does not ask for a smaller one.
    assert.deepEqual(await disks.attachDisk({ ...root, base }, call), disk);
    assert.deepEqual(await sizesOf(under), { [word(root)]: 8 * gibibyte });
  });

  behaviour("many who ask for one disk at once get the same", async (under) => {
    const { disks, base } = under;
    const answers = await Promise.all(Array.from({ length: 5 }, () => disks.attachDisk({ ...root, base }, call)));
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
    assert.equal((await disks.listDisks(call)).length, 1);
  });

  behaviour("what a disk reads from is told, so that nobody takes it away", async ({ disks, base }) => {
    await disks.attachDisk({ ...root, base }, call);
    await disks.cloneDisk(root, other, call);
    for (const { backing } of await disks.listDisks(call)) assert.equal(backing.at(-1), base.path);
  });

  behaviour("a clone is a disk of its own, and made once", async (under) => {
    const { disks, base } = under;
    await assert.rejects(disks.cloneDisk(root, other, call), (error) => isFault(error, "not-found"));
    await disks.attachDisk({ ...root, base, sizeBytes: 3 * gibibyte }, call);
    await disks.cloneDisk(root, other, call);
    await disks.cloneDisk(root, other, call);
    await disks.cloneDisk(root, root, call);
    await disks.removeDisk(root.id, root.name, call);
    assert.deepEqual(await sizesOf(under), { [word(other)]: 3 * gibibyte });
    assert.equal((await disks.attachDisk({ ...other, base }, call)).format, "qcow2");
  });

  behaviour("only a disk that is there is exported", async ({ disks, base, exportPath }) => {
    await assert.rejects(disks.exportDisk(root, exportPath, call), (error) => isFault(error, "not-found"));
    await disks.attachDisk({ ...root, base }, call);
    await disks.exportDisk(root, exportPath, call);
  });

  behaviour("a cancelled call makes nothing", async (under) => {
    const { disks, base, exportPath } = under;
    const cancelled = backgroundCall(systemClock, AbortSignal.abort());
    await assert.rejects(disks.attachDisk({ ...root, base }, cancelled), isCancelled);
    assert.deepEqual(await sizesOf(under), {});
    await disks.attachDisk({ ...root, base }, call);
    await assert.rejects(disks.cloneDisk(root, other, cancelled), isCancelled);
    await assert.rejects(disks.exportDisk(root, exportPath, cancelled), isCancelled);
    assert.deepEqual(Object.keys(await sizesOf(under)), [word(root)]);
  });

  behaviour("what is not there is removed at once", async (under) => {
    await under.disks.removeDisk(root.id, root.name, call);
    assert.deepEqual(await sizesOf(under), {});
  });
}

function word({ id, name }: DiskKey): string {
  return `${name} ${id}`;
}

function isCancelled(error: unknown): boolean {
  return isFault(error, "cancelled");
}
