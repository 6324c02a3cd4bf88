// Who changes things while they are in use: resets, more partitions, trims, commits from outside, topics that go and
// come again.

import type { Dice } from "../support/dice.ts";
import { LOST } from "./server.ts";
import type { World } from "./world.ts";

const EVERY_MIN_MS = 1_000;
const EVERY_MAX_MS = 15_000;
const PARTITIONS_MAX = 8;
const SHIFT_MAX = 20;

type Act = (world: World, dice: Dice) => Promise<void>;

export interface Subjects {
  readonly topic: string;
  readonly groups: readonly string[];
  /** A topic that may go. */
  readonly doomedTopic: string;
  /** A group without members. */
  readonly outsideGroup: string;
}

export function operators(subjects: Subjects): readonly Act[] {
  const { topic, groups, doomedTopic, outsideGroup } = subjects;
  return [
    async function reset(world, dice) {
      const group = dice.pick(groups);
      const shift = dice.between(-SHIFT_MAX, SHIFT_MAX);
      const to = dice.pick(["earliest", "latest", "current", { shift }, { ago: dice.below(20_000) }]);
      await world.call(dice, "POST", `/v1/groups/${group}/reset`, {
        topics: [{ topic }],
        to,
        reason: "why not",
      });
    },

    async function resetByPlan(world, dice) {
      const group = dice.pick(groups);
      const path = `/v1/groups/${group}/reset`;
      const shift = dice.between(-SHIFT_MAX, SHIFT_MAX);
      const preview = await world.call(dice, "POST", path, {
        topics: [{ topic }],
        to: { shift },
        dryRun: true,
      });
      if (preview === LOST || preview.status !== 200) return;
      await world.call(dice, "POST", path, { plan: preview.body.plan });
    },

    async function grow(world, dice) {
      const partitionCount = dice.between(2, PARTITIONS_MAX);
      await world.call(dice, "PUT", `/v1/topics/${topic}`, { partitionCount });
    },

    async function trim(world, dice) {
      const described = await world.call(dice, "GET", `/v1/topics/${topic}`);
      if (described === LOST || described.status !== 200) return;
      const { partition, logStartOffset, logEndOffset } = dice.pick<{
        partition: number;
        logStartOffset: number;
        logEndOffset: number;
      }>(described.body.partitions);
      const before = dice.between(logStartOffset, logEndOffset);
      await world.call(
        dice,
        "DELETE",
        `/v1/topics/${topic}/partitions/${partition}/records?before=${before}`,
      );
    },

    async function commitFromOutside(world, dice) {
      const offset = dice.below(200);
      world.record({ type: "passing", group: outsideGroup, topic, partition: 0, offset });
      const offsets = [{ topic, partition: 0, offset }];
      await world.call(dice, "POST", `/v1/groups/${outsideGroup}/offsets`, { offsets });
    },

    async function deleteTopic(world, dice) {
      await world.call(dice, "DELETE", `/v1/topics/${doomedTopic}`);
    },

    async function createTopic(world, dice) {
      await world.call(dice, "PUT", `/v1/topics/${doomedTopic}`, { partitionCount: dice.between(1, 3) });
    },

    async function look(world, dice) {
      await world.call(dice, "GET", `/v1/groups/${dice.pick(groups)}`);
    },
  ];
}

/** Until the chaos ends. */
export async function operate(world: World, subjects: Subjects): Promise<void> {
  const dice = world.dice.fork("operators");
  const acts = operators(subjects).filter(() => dice.isLucky(0.5));
  while (world.isChaos && acts.length > 0) {
    await world.time.sleep(dice.spread(EVERY_MIN_MS, EVERY_MAX_MS));
    const act = dice.pick(acts);
    if (!world.isChaos) return;
    world.note(`operator: ${act.name}`);
    await act(world, dice);
  }
}
