// A set of offsets as ranges: what was delivered is nearly one run, and grows at its end.

interface Range {
  from: number;
  until: number;
}

export class OffsetSet {
  /** Disjoint, not touching, in order. */
  #ranges: Range[] = [];

  /** The half-open range. */
  add(from: number, until: number): void {
    if (until <= from) return;
    const last = this.#ranges.at(-1);
    if (last && from >= last.from && from <= last.until) {
      last.until = Math.max(last.until, until);
      return;
    }
    const touching = this.#ranges.filter((range) => range.from <= until && from <= range.until);
    const merged = {
      from: Math.min(from, ...touching.map((range) => range.from)),
      until: Math.max(until, ...touching.map((range) => range.until)),
    };
    const others = this.#ranges.filter((range) => !touching.includes(range));
    this.#ranges = [...others, merged].sort((one, other) => one.from - other.from);
  }

  /** The lowest that is not in the set, of the half-open range. */
  firstMissing(from: number, until: number): number | undefined {
    if (until <= from) return undefined;
    const range = this.#ranges.find((each) => each.from <= from && from < each.until);
    if (!range) return from;
    return range.until >= until ? undefined : range.until;
  }

  has(offset: number): boolean {
    return this.firstMissing(offset, offset + 1) === undefined;
  }

  /** Above the highest; 0 of an empty set. */
  get end(): number {
    return this.#ranges.at(-1)?.until ?? 0;
  }
}
