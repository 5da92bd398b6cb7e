import { Wake } from "../../base/wake.ts";

/** Items of several endless streams, whichever comes first. Leaving it leaves them all. */
export async function* mergeAsTheyCome<Item>(streams: readonly AsyncIterable<Item>[]): AsyncGenerator<Item> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  // No race of promises: one that stays quiet for long would keep all that the others said meanwhile.
  const arrived: Promise<Advance<Item>>[] = [];
  const news = new Wake();
  const ask = (iterator: AsyncIterator<Item>): void => {
    const next = advance(iterator);
    const arrive = (): void => {
      arrived.push(next);
      news.ring();
    };
    next.then(arrive, arrive);
  };
  let open = iterators.length;
  for (const iterator of iterators) ask(iterator);
  try {
    while (open > 0) {
      const next = arrived.shift();
      if (next === undefined) {
        // The streams themselves end when their call is cancelled.
        await news.next();
        continue;
      }
      const { iterator, result } = await next;
      if (result.done === true) {
        open -= 1;
        continue;
      }
      yield result.value;
      ask(iterator);
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
