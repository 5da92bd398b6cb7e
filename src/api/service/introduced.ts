/** A client's stream whose first message says what the bytes are, as that message and the bytes of all of them. */
export async function introduced<Request extends { readonly chunk: Uint8Array }>(
  requests: AsyncIterable<Request>,
): Promise<{ readonly first: Request | undefined; readonly chunks: AsyncIterable<Uint8Array> }> {
  const spoken = requests[Symbol.asyncIterator]();
  const { done, value } = await spoken.next();
  const first = done === true ? undefined : value;
  async function* chunks(): AsyncGenerator<Uint8Array> {
    if (first === undefined) return;
    if (first.chunk.length > 0) yield first.chunk;
    for (;;) {
      const next = await spoken.next();
      if (next.done === true) return;
      if (next.value.chunk.length > 0) yield next.value.chunk;
    }
  }
  return { first, chunks: chunks() };
}
