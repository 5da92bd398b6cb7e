import { Fault } from "../../base/fault.ts";

/** Something that belongs to a stack and has a name in it. */
interface Owned {
  readonly id: string;
  readonly stack: string;
  readonly name: string;
}

/**
 * The one of `all` that a person means by its id `shop.db`, by `shop/db`, or by `db` when only one stack has it.
 * Throws `not-found` or, when several match, `invalid`, with what there is.
 */
export function findNamed<Thing extends Owned>(what: string, all: readonly Thing[], asked: string): Thing {
  const whole = all.find((thing) => thing.id === asked || `${thing.stack}/${thing.name}` === asked);
  if (whole !== undefined) return whole;
  const [first, ...others] = all.filter((thing) => thing.name === asked);
  if (first === undefined) {
    const known = all.slice(0, 5).map((thing) => `${thing.stack}/${thing.name}`);
    throw new Fault("not-found", `there is no ${what} ${asked}`, {
      hint: known.length === 0 ? `there is no ${what} at all yet` : `there are ${known.join(", ")}`,
    });
  }
  if (others.length > 0) {
    const names = [first, ...others].map((thing) => `${thing.stack}/${thing.name}`);
    throw new Fault("invalid", `${asked} is the name of ${names.length} ${what}s`, {
      hint: `say ${names.join(" or ")}`,
    });
  }
  return first;
}
