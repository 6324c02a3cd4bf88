// Who changes things while they are in use: resets, more partitions, trims, commits from outside, topics that go and
// come again; and what topics keep, again and again.

import type { KeepSettings } from "../proof/history.ts";
import type { Dice } from "../support/dice.ts";
import { LOST } from "./server.ts";
import type { World } from "./world.ts";

const OPERATORS_EVERY_MS = [1_000, 15_000] as const;
const KEEPERS_EVERY_MS = [100, 5_000] as const;
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
  const { topic, groups, doomedTopic } = subjects;
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
      world.record({ type: "trimming", topic, partition, before });
      await world.call(
        dice,
        "DELETE",
        `/v1/topics/${topic}/partitions/${partition}/records?before=${before}`,
      );
    },

    async function passOver(world, dice) {
      await commitFromOutside(world, dice, subjects);
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

async function commitFromOutside(world: World, dice: Dice, { topic, outsideGroup }: Subjects): Promise<void> {
  const offset = dice.below(200);
  world.record({ type: "passing", group: outsideGroup, topic, partition: 0, offset });
  const offsets = [{ topic, partition: 0, offset }];
  await world.call(dice, "POST", `/v1/groups/${outsideGroup}/offsets`, { offsets });
}

function keepers(subjects: Subjects): readonly Act[] {
  const { topic, doomedTopic } = subjects;
  const anyTopic = (dice: Dice) => (dice.isLucky(0.8) ? topic : doomedTopic);
  return [
    async function retain(world, dice) {
      const limit = dice.pick([
        { retentionRecords: dice.spread(1, 60) },
        { retentionBytes: dice.spread(10, 2_000) },
        { retentionMs: dice.spread(300, 20_000) },
      ]);
      await set(world, dice, { topic: anyTopic(dice), to: limit });
    },

    async function keepAll(world, dice) {
      const to = { retentionMs: null, retentionBytes: null, retentionRecords: null };
      await set(world, dice, { topic: anyTopic(dice), to });
    },

    async function compact(world, dice) {
      const ages = dice.some({ minLagMs: dice.spread(100, 10_000), tombstoneMs: dice.spread(1, 5_000) });
      await set(world, dice, { topic: anyTopic(dice), to: { isCompacted: true, ...ages } });
    },

    async function compactAtOnce(world, dice) {
      const to = { isCompacted: true, minLagMs: null, tombstoneMs: dice.pick([null, 0, 1_000]) };
      await set(world, dice, { topic: anyTopic(dice), to });
    },

    async function compactNoMore(world, dice) {
      await set(world, dice, { topic: anyTopic(dice), to: { isCompacted: false } });
    },

    /** The group expires, and comes again. */
    async function passOver(world, dice) {
      await commitFromOutside(world, dice, subjects);
    },
  ];
}

interface Setting {
  readonly topic: string;
  readonly to: Partial<KeepSettings>;
}

/** A request without an answer may be carried out at any time, or never. */
async function set(world: World, dice: Dice, { topic, to }: Setting): Promise<void> {
  const setting = world.nextName("setting");
  world.record({ type: "setting", setting, topic, to });
  const answer = await world.call(dice, "PUT", `/v1/topics/${topic}`, bodyOf(to));
  if (answer === LOST || answer.body.code === "outcome_unknown") return;
  world.record({ type: "set", setting });
  if (answer.status < 300 || answer.body.retriable) return;
  // A record without a key is in the way.
  if (answer.status === 409 && to.isCompacted === true && !world.keys.isEverywhere) return;
  throw new Error(`${setting} was refused: ${JSON.stringify(answer.body)}`);
}

function bodyOf(to: Partial<KeepSettings>): Readonly<Record<string, unknown>> {
  const { retentionMs: ms, retentionBytes: bytes, retentionRecords: records } = to;
  const { isCompacted, minLagMs, tombstoneMs } = to;
  return {
    retention: { ms, bytes, records },
    ...(isCompacted !== undefined && { cleanup: isCompacted ? "compact" : "delete" }),
    compaction: { minLagMs, tombstoneMs },
  };
}

/** Until the chaos ends. */
export async function operate(world: World, subjects: Subjects): Promise<void> {
  const dice = world.dice.fork("operators");
  const acts = operators(subjects).filter(() => dice.isLucky(0.5));
  await Promise.all([
    repeat(world, { dice, acts, everyMs: OPERATORS_EVERY_MS }),
    changeWhatIsKept(world, subjects),
  ]);
}

async function changeWhatIsKept(world: World, subjects: Subjects): Promise<void> {
  const dice = world.dice.fork("keepers");
  const acts = dice.isLucky(0.8) ? keepers(subjects).filter(() => dice.isLucky(0.7)) : [];
  // Mostly from the start on.
  if (acts.length > 0 && dice.isLucky(0.7)) await dice.pick(acts)(world, dice);
  await repeat(world, { dice, acts, everyMs: KEEPERS_EVERY_MS });
}

interface Acting {
  readonly dice: Dice;
  readonly acts: readonly Act[];
  readonly everyMs: readonly [min: number, max: number];
}

async function repeat(world: World, { dice, acts, everyMs }: Acting): Promise<void> {
  while (world.isChaos && acts.length > 0) {
    await world.time.sleep(dice.spread(...everyMs));
    const act = dice.pick(acts);
    if (!world.isChaos) return;
    world.note(`operator: ${act.name}`);
    await act(world, dice);
  }
}
