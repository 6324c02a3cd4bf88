// Browser-safe. What waits to be sent, gathered into batches as it comes: what goes to one topic goes together, in order,
// as far as a batch may be. What travels alone is a border that nothing is moved across, so that what stood before it is
// written before it. Pure.

/** One send, which is never divided. */
export interface Waiting {
  /** Undefined: a transaction. */
  readonly topic: string | undefined;
  readonly text: string;
  readonly count: number;
  isAlone: boolean;
}

export interface QueueLimits {
  readonly batchRecords: number;
  readonly batchLength: number;
}

interface WaitingBatch<T> {
  readonly items: T[];
  count: number;
  length: number;
}

export class ProducerQueue<T extends Waiting> {
  readonly #limits: QueueLimits;
  #batches: WaitingBatch<T>[] = [];
  /** The last batch of each topic, where more may go. */
  readonly #open = new Map<string, WaitingBatch<T>>();

  constructor(limits: QueueLimits) {
    this.#limits = limits;
  }

  /** Whether there is a whole batch, for which more would come too late. */
  get isFull(): boolean {
    return this.#batches.length > this.#open.size;
  }

  push(item: T): void {
    if (item.isAlone) this.#open.clear();
    const topic = item.topic ?? "";
    const open = this.#open.get(topic);
    if (open && this.#fits(open, item)) {
      open.items.push(item);
      open.count += item.count;
      open.length += item.text.length;
      if (open.count >= this.#limits.batchRecords) this.#open.delete(topic);
      return;
    }
    const batch = { items: [item], count: item.count, length: item.text.length };
    this.#batches.push(batch);
    if (item.isAlone || batch.count >= this.#limits.batchRecords) this.#open.delete(topic);
    else this.#open.set(topic, batch);
  }

  /** The sends of the next frame. */
  take(): readonly T[] | undefined {
    const batch = this.#batches.shift();
    const topic = batch?.items[0]?.topic ?? "";
    if (batch === this.#open.get(topic)) this.#open.delete(topic);
    return batch?.items;
  }

  /** In front of everything, in their order. */
  putBack(items: readonly T[]): void {
    const before = new ProducerQueue<T>(this.#limits);
    for (const item of items) before.push(item);
    this.#batches = [...before.#batches, ...this.#batches];
  }

  /** Takes out what `isGone` says, and returns it. */
  remove(isGone: (item: T) => boolean): readonly T[] {
    const gone: T[] = [];
    for (const batch of this.#batches) {
      for (const item of batch.items.filter(isGone)) {
        batch.items.splice(batch.items.indexOf(item), 1);
        batch.count -= item.count;
        batch.length -= item.text.length;
        gone.push(item);
      }
    }
    if (gone.length === 0) return gone;
    for (const [topic, batch] of this.#open) if (batch.items.length === 0) this.#open.delete(topic);
    this.#batches = this.#batches.filter(({ items }) => items.length > 0);
    return gone;
  }

  #fits({ count, length }: WaitingBatch<T>, item: T): boolean {
    const { batchRecords, batchLength } = this.#limits;
    return count + item.count <= batchRecords && length + item.text.length <= batchLength;
  }
}
