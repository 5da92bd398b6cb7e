/**
 * The circles of a graph, each as the names around it with the first again at the end: `a b a`. One for each set of
 * names that reach each other, so that a tangle is told once.
 */
export function findCycle(edges: ReadonlyMap<string, readonly string[]>): string[][] {
  const done = new Set<string>();
  const cycles: string[][] = [];
  for (const root of edges.keys()) {
    if (done.has(root)) continue;
    // A walk with its own stack: a chain of thousands of needs must not end in a stack overflow.
    const trail: { readonly name: string; next: number }[] = [{ name: root, next: 0 }];
    const onTrail = new Map<string, number>([[root, 0]]);
    for (let top = trail.at(-1); top !== undefined; top = trail.at(-1)) {
      const target = edges.get(top.name)?.[top.next];
      top.next += 1;
      if (target === undefined) {
        done.add(top.name);
        onTrail.delete(top.name);
        trail.pop();
        continue;
      }
      const since = onTrail.get(target);
      if (since !== undefined) cycles.push([...trail.slice(since).map((step) => step.name), target]);
      else if (!done.has(target)) {
        onTrail.set(target, trail.length);
        trail.push({ name: target, next: 0 });
      }
    }
  }
  return cycles;
}
