// What holds of the place where an ownership begins: it is the committed offset, or what a policy makes of it.

import type { Anomaly } from "./checker.ts";
import type { EventOf, History, HistoryEvent, LogRef, ResetRow } from "./history.ts";
import { logKey } from "./log-key.ts";

export function findStartAnomalies(history: History): readonly Anomaly[] {
  const starts = new Starts();
  for (const event of history) starts.see(event);
  return starts.anomalies;
}

type Assigned = EventOf<"assigned">["partitions"][number];
type Place = number | null;

class Starts {
  readonly anomalies: Anomaly[] = [];
  readonly #subscriptions = new Map<string, EventOf<"subscribed">>();
  /** Generations whose owner has begun. */
  readonly #begun = new Set<string>();
  /** What may have been committed when a generation began, where a snapshot has seen it before its owner did. */
  readonly #places = new Map<string, readonly Place[]>();

  see(event: HistoryEvent): void {
    if (event.type === "subscribed") this.#subscriptions.set(event.consumer, event);
    if (event.type === "snapshot") this.#seeSnapshot(event);
    if (event.type === "assigned") for (const each of event.partitions) this.#judge(event.consumer, each);
  }

  #seeSnapshot({ committed, owners, resets }: EventOf<"snapshot">): void {
    const offsets = new Map(committed.map((row) => [keyOf(row.group, row), row.offset]));
    const rows = Map.groupBy(resets, ({ group, topic, partition }) => `${group} ${topic}/${partition}`);
    for (const owner of owners) {
      const key = keyOf(owner.group, owner);
      const generation = `${key} ${owner.generation}`;
      if (this.#begun.has(generation) || this.#places.has(generation)) continue;
      const moves = rows.get(`${owner.group} ${owner.topic}/${owner.partition}`) ?? [];
      this.#places.set(generation, [offsets.get(key) ?? null, ...placesOf(moves)]);
    }
  }

  #judge(consumer: string, each: Assigned): void {
    const { position, logStartOffset, logEndOffset, reset, isSought } = each;
    const what = `${consumer} begins ${logKey(each)} in generation ${each.generation} at ${position}`;
    // The bounds are those of a moment later: the log may have been trimmed since the policy was applied.
    if (reset === "earliest" && position !== null && position > logStartOffset)
      this.#tell(`${what}, the log starts at ${logStartOffset}`);
    if (position !== null && position > logEndOffset) this.#tell(`${what}, the log ends at ${logEndOffset}`);
    const subscription = this.#subscriptions.get(consumer);
    if (!isSought && subscription && subscription.group !== null)
      this.#judgeOfGroup(subscription, { each, key: keyOf(subscription.group, each), what });
  }

  #judgeOfGroup(
    { isCommittedAhead }: EventOf<"subscribed">,
    { each, key, what }: { readonly each: Assigned; readonly key: string; readonly what: string },
  ): void {
    const { position, committedOffset, reset, generation } = each;
    const isFirst = !this.#begun.has(`${key} ${generation}`);
    this.#begun.add(`${key} ${generation}`);
    // A policy may move a position that a seek has brought below the log start, and leave what is committed.
    if (reset !== undefined) return;
    const isRight = position === null ? !isFirst || !isUsable(each) : position === committedOffset;
    if (!isRight) this.#tell(`${what}, committed is ${committedOffset}`);
    const places = this.#places.get(`${key} ${generation}`);
    if (!isFirst || !places || places.includes(committedOffset)) return;
    // What it is sent first may be committed before it is told that it owns the partition.
    if (isCommittedAhead && places.some((place) => (place ?? -1) > (committedOffset ?? -1))) return;
    this.#tell(`${what}, ${places} was committed when it began`);
  }

  #tell(says: string): void {
    this.anomalies.push({ name: "reset started at the wrong place", says });
  }
}

/** Between two snapshots a generation may have begun, by an operator's reset or not, and a policy have moved it on. */
function placesOf(moves: readonly ResetRow[]): readonly Place[] {
  const begunBy = moves.findLastIndex(({ cause }) => cause.startsWith("reset"));
  const [beginning, ...others] = begunBy < 0 ? [undefined, ...moves] : moves.slice(begunBy);
  const places = others.flatMap((move) => (move ? [move.previous, move.offset] : []));
  return beginning ? [beginning.offset, ...places] : places;
}

/** Any other is a matter of the policy, and the policy `none` leaves it without a place. */
function isUsable({ committedOffset, logStartOffset, logEndOffset }: Assigned): boolean {
  return committedOffset !== null && committedOffset >= logStartOffset && committedOffset <= logEndOffset;
}

function keyOf(group: string, log: LogRef): string {
  return `${group} ${logKey(log)}`;
}
