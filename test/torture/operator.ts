// An operator at work while everything else is: moves a group back, commits for one without members, trims a topic under
// its readers, gives another one more partitions.

import { ask, askUntilDone } from "./asking.ts";
import type { Load } from "./load.ts";

const PAUSE_MIN_MS = 300;
const PAUSE_MAX_MS = 2_000;
const PARTITIONS_MAX = 6;

export interface OperatorPlace {
  readonly group: string;
  /** It has only what is committed from outside. */
  readonly memberless: string;
  readonly trimmed: { readonly topic: string; readonly partitionCount: number };
  readonly growing: { readonly topic: string; readonly partitionCount: number };
}

export async function operate(
  load: Load,
  { group, memberless, trimmed, growing }: OperatorPlace,
): Promise<void> {
  const { dice } = load;
  let { partitionCount } = growing;
  while (load.isSending) {
    await Bun.sleep(dice.between(PAUSE_MIN_MS, PAUSE_MAX_MS)); // an operator is slow
    const what = dice.between(1, 10);
    if (what <= 4) await reset(load, group, trimmed.topic);
    else if (what === 5) await commitFromOutside(load, memberless, trimmed);
    else if (what <= 8) await trim(load, trimmed);
    else if (partitionCount < PARTITIONS_MAX) {
      partitionCount += 1;
      const path = `/v1/topics/${growing.topic}`;
      await askUntilDone(load, { method: "PUT", path, body: { partitionCount }, wanted: [200] });
    }
  }
}

/** Once: to ask again would move it twice. Whether it was done stands in the history of offsets. */
async function reset(load: Load, group: string, topic: string): Promise<void> {
  const to = load.dice.isLucky(0.8) ? { shift: -load.dice.between(1, 60) } : "earliest";
  const body = { topics: [{ topic }], to, reason: "torture" };
  const status = await ask(load, { method: "POST", path: `/v1/groups/${group}/reset`, body, wanted: [] });
  // Before its first member there is no group, and no committed offset.
  const isAllowed = status === 0 || status === 200 || status === 404 || status === 409 || status >= 500;
  if (!isAllowed) load.problems.push(`a reset was answered ${status}`);
}

/** Forward only, and inside the log: what is not so is refused, each entry by itself. */
async function commitFromOutside(
  load: Load,
  group: string,
  { topic, partitionCount }: OperatorPlace["trimmed"],
): Promise<void> {
  const partition = load.dice.between(0, partitionCount - 1);
  const offset = load.dice.between(0, 400);
  await load.recorder.opened();
  load.recorder.write({ type: "passing", group, topic, partition, offset });
  const body = { offsets: [{ topic, partition, offset }] };
  await askUntilDone(load, { method: "POST", path: `/v1/groups/${group}/offsets`, body, wanted: [200] });
}

/** To anywhere below the log end. */
async function trim(load: Load, { topic, partitionCount }: OperatorPlace["trimmed"]): Promise<void> {
  const path = `/v1/topics/${topic}/partitions/${load.dice.between(0, partitionCount - 1)}/records`;
  const before = load.dice.between(0, 40) * load.dice.between(1, 10);
  // More than is there is refused.
  await askUntilDone(load, { method: "DELETE", path: `${path}?before=${before}`, wanted: [200, 416] });
}
