/** Items of several endless streams, whichever comes first. Leaving it leaves them all. */
export async function* mergeAsTheyCome<Item>(streams: readonly AsyncIterable<Item>[]): AsyncGenerator<Item> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  const pending = new Map(iterators.map((iterator) => [iterator, advance(iterator)]));
  try {
    while (pending.size > 0) {
      const { iterator, result } = await Promise.race(pending.values());
      if (result.done === true) {
        pending.delete(iterator);
        continue;
      }
      yield result.value;
      pending.set(iterator, advance(iterator));
    }
  } finally {
    leave(iterators);
  }
}

/** Items of several streams that end, oldest first, when each is in the order of its times. */
export async function* mergeByTime<Item>(
  streams: readonly AsyncIterable<Item>[],
  timeMs: (item: Item) => number,
): AsyncGenerator<Item> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  try {
    const heads = await Promise.all(iterators.map(advance));
    for (;;) {
      let oldest: { readonly at: number; readonly item: Item } | undefined;
      for (const [at, { result }] of heads.entries()) {
        if (result.done === true) continue;
        if (oldest === undefined || timeMs(result.value) < timeMs(oldest.item)) oldest = { at, item: result.value };
      }
      if (oldest === undefined) return;
      yield oldest.item;
      const iterator = iterators[oldest.at];
      if (iterator !== undefined) heads[oldest.at] = await advance(iterator);
    }
  } finally {
    leave(iterators);
  }
}

interface Advance<Item> {
  readonly iterator: AsyncIterator<Item>;
  readonly result: IteratorResult<Item>;
}

async function advance<Item>(iterator: AsyncIterator<Item>): Promise<Advance<Item>> {
  return { iterator, result: await iterator.next() };
}

/** Not awaited: one that waits for its next item ends when the call's signal aborts, not before. */
function leave(iterators: readonly AsyncIterator<unknown>[]): void {
  for (const iterator of iterators) iterator.return?.().catch(() => {});
}
