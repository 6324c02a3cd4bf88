// What holds of the frames of one consumer: every record from its position on, once, in order. Only what the log does
// not hold any more may be passed over.

import type { Anomaly } from "./checker.ts";
import { type ConsumerPlace, ConsumerPlaces } from "./consumer-places.ts";
import { GoneOffsets } from "./gone-offsets.ts";
import type { EventOf, History, HistoryEvent, LogRef } from "./history.ts";
import { logKey } from "./log-key.ts";

export function findPollAnomalies(history: History): readonly Anomaly[] {
  const polls = new Polls();
  for (const event of history) polls.see(event);
  return polls.finish();
}

type IsGone = (log: LogRef, offset: number) => boolean;

interface Poll {
  readonly poll: EventOf<"polled">;
  readonly place: ConsumerPlace | undefined;
}

/** What a frame may pass over was deleted before it was seen: the next look at the log tells. */
class Polls {
  readonly #places = new ConsumerPlaces();
  readonly #anomalies: Anomaly[] = [];
  #unjudged: Poll[] = [];
  readonly #logStarts = new Map<string, number>();
  readonly #gone = new GoneOffsets();

  see(event: HistoryEvent): void {
    if (event.type === "polled") this.#unjudged.push({ poll: event, place: this.#places.of(event) });
    this.#places.see(event);
    this.#gone.see(event);
    if (event.type === "log") this.#logStarts.set(logKey(event), event.logStartOffset);
    if (event.type !== "snapshot") return;
    for (const log of event.logs) this.#logStarts.set(logKey(log), log.logStartOffset);
    const isThere = new Set(event.logs.map(logKey));
    this.#judge((log, offset) => !isThere.has(logKey(log)) || this.#isDeleted(log, offset));
  }

  finish(): readonly Anomaly[] {
    this.#judge((log, offset) => this.#isDeleted(log, offset));
    return this.#anomalies;
  }

  #judge(isGone: IsGone): void {
    for (const { poll, place } of this.#unjudged) this.#anomalies.push(...judgePoll(poll, place, isGone));
    this.#unjudged = [];
  }

  #isDeleted(log: LogRef, offset: number): boolean {
    return this.#gone.has(log, offset) || offset < (this.#logStarts.get(logKey(log)) ?? 0);
  }
}

function judgePoll(
  poll: EventOf<"polled">,
  place: ConsumerPlace | undefined,
  isGone: IsGone,
): readonly Anomaly[] {
  const { consumer, topic, partition, generation, records, next } = poll;
  const what = `${consumer}, ${topic}/${partition}, generation ${generation}`;
  if (!place || place.generation !== generation || place.next === null) {
    const owned = place ? `generation ${place.generation} at ${place.next}` : "nothing of it";
    return [{ name: "split ownership", says: `${what}: was sent records and owns ${owned}` }];
  }
  const [first = next, ...others] = records.map(({ offset }) => offset);
  const isSkipped = (offset: number) => !isGone(place.log, offset);
  const between = findBreaks([place.next - 1, first], isSkipped);
  const inside = findBreaks(records.length > 0 ? [first, ...others, next] : [], isSkipped);
  return [
    ...between.map((says) => ({ name: `external ${says.kind}`, says: `${what}: ${says.text}` }) as const),
    ...inside.map((says) => ({ name: `internal ${says.kind}`, says: `${what}: ${says.text}` }) as const),
  ];
}

interface Break {
  readonly kind: "non-monotonic poll" | "poll skip";
  readonly text: string;
}

/** Where one offset is not the successor of the one before, and what is between them is not gone. */
function findBreaks(offsets: readonly number[], isSkipped: (offset: number) => boolean): readonly Break[] {
  return offsets.slice(1).flatMap((offset, index): readonly Break[] => {
    const before = offsets[index] ?? 0;
    if (offset <= before) return [{ kind: "non-monotonic poll", text: `${offset} after ${before}` }];
    for (let missing = before + 1; missing < offset; missing += 1)
      if (isSkipped(missing))
        return [{ kind: "poll skip", text: `${missing} was not sent before ${offset}` }];
    return [];
  });
}
