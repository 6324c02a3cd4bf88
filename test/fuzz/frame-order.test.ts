// Frames in any order, said by several sockets of one group, alone and at once: what each must be answered, who has what
// afterwards, what is committed and what is sent. The shortest sequence that breaks it is what a failure shows.

import { afterAll, expect, test } from "bun:test";
import fc from "fast-check";
import { openTestDatabase } from "../support/database.ts";
import { isLongRun } from "../support/long.ts";
import type { Command, FrameCommand, Speaker } from "./order/command.ts";
import { Burst, HangUp, Pass, Reset } from "./order/events.ts";
import { Model, PARTITIONS, SOCKETS, tally } from "./order/model.ts";
import { Real } from "./order/real.ts";
import { ACK_KINDS, Ack, SeekTo, Steer } from "./order/steering.ts";
import { Subscribe, Unsubscribe } from "./order/subscribes.ts";
import { Produce, Transact } from "./order/writes.ts";
import { seedOfRun } from "./seed.ts";

const RUNS = isLongRun ? 500 : 25;
const COMMANDS_MAX = 100;
const LONG_MS = 600_000;

const database = await openTestDatabase();
afterAll(() => database.close());

const speaker: fc.Arbitrary<Speaker> = fc.record({
  socket: fc.nat(SOCKETS - 1),
  name: fc.constantFrom("s1", "s1", "s2"),
  isLost: fc.nat(9).map((number) => number === 9),
});
const partition = fc.nat(PARTITIONS - 1);
/** Of those that the subscription has. */
const which = fc.nat(11);
const count = fc.integer({ min: 1, max: 6 });
const shift = fc.integer({ min: -8, max: 8 });

/** Said by somebody. */
function by<Options>(
  weight: number,
  options: fc.Arbitrary<Options>,
  make: (speaker: Speaker, options: Options) => FrameCommand,
) {
  const arbitrary = fc.tuple(speaker, options).map(([who, given]) => make(who, given));
  return { weight, arbitrary };
}

const subscribeOptions = fc.record({
  kind: fc.constantFrom(
    "member" as const,
    "member" as const,
    "instance" as const,
    "takeover" as const,
    "reader" as const,
  ),
  ack: fc.constantFrom("manual" as const, "manual" as const, "none" as const),
  records: fc.constantFrom(1, 3, 10),
  reset: fc.constantFrom("earliest" as const, "latest" as const),
  which: fc.nat(3),
});
const steerOptions = fc.record({
  type: fc.constantFrom(
    "pause" as const,
    "resume" as const,
    "release" as const,
    "release" as const,
    "release" as const,
  ),
  which: fc.array(which, { minLength: 1, maxLength: 2 }),
});
const seekOptions = fc.record({
  which,
  to: fc.oneof(
    fc.constantFrom("earliest" as const, "latest" as const, "current" as const),
    fc.record({ offset: fc.nat(12) }),
    fc.record({ shift }),
  ),
});
const produceOptions = fc.record({
  partition,
  count,
  condition: fc.constantFrom(
    "none" as const,
    "none" as const,
    "expect" as const,
    "unexpected" as const,
    "next" as const,
    "repeat" as const,
    "gap" as const,
    "fenced" as const,
    "partition" as const,
  ),
});
const transactOptions = fc.record({
  which,
  count,
  target: partition,
  commit: fc.constantFrom(
    "right" as const,
    "right" as const,
    "old" as const,
    "back" as const,
    "beyond" as const,
  ),
});

const frameCommand: fc.Arbitrary<FrameCommand> = fc.oneof(
  by(9, subscribeOptions, (who, given) => new Subscribe(who, given)),
  by(1, fc.constant(0), (who) => new Unsubscribe(who)),
  by(
    10,
    fc.record({
      kind: fc.constantFrom("right" as const, "right" as const, "furthest" as const, ...ACK_KINDS),
      which,
    }),
    (who, given) => new Ack(who, given),
  ),
  by(7, steerOptions, (who, given) => new Steer(who, given)),
  by(4, seekOptions, (who, given) => new SeekTo(who, given)),
  by(7, produceOptions, (who, given) => new Produce(who, given)),
  by(4, transactOptions, (who, given) => new Transact(who, given)),
);

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 30, arbitrary: frameCommand },
  {
    weight: 4,
    arbitrary: fc.array(frameCommand, { minLength: 2, maxLength: 4 }).map((several) => new Burst(several)),
  },
  { weight: 1, arbitrary: fc.nat(SOCKETS - 1).map((socket) => new HangUp(socket)) },
  { weight: 2, arbitrary: fc.constantFrom(200, 1_000, 1_000, 5_100, 13_000).map((ms) => new Pass(ms)) },
  {
    weight: 1,
    arbitrary: fc
      .oneof(fc.constantFrom("earliest" as const, "latest" as const), fc.record({ shift }))
      .map((to) => new Reset(to)),
  },
);

const COMMON = ["subscribed", "assigned", "records", "produced", "acked", "error conflict"];
const RARE = [
  "unsubscribed",
  "unsubscribed replaced",
  "revoked soon",
  "assigned by seek",
  "transacted",
  "produced before",
  "ok",
  "acked fenced_generation",
  "acked offset_out_of_range",
  "acked unknown_topic",
  "acked unknown_partition",
  "error bad_request",
  "error fenced_generation",
  "error fenced_producer",
  "error not_assigned",
  "error offset_out_of_range",
  "error sequence_gap",
  "error unknown_partition",
  "error unknown_subscription",
];

test(
  "frames in any order are answered once, and as foretold; owners, committed offsets and records are as the model has them",
  async () => {
    const commands = fc.commands([command], { maxCommands: COMMANDS_MAX, size: "max" });
    const property = fc.asyncProperty(commands, async (sequence) => {
      const real = await Real.start(database);
      await fc.asyncModelRun(() => ({ model: new Model(), real }), sequence);
      await real.end();
    });
    const seed = seedOfRun();
    await fc.assert(property, { numRuns: RUNS, seed });
    // What never came was not tested.
    expect([...tally.keys()]).toEqual(expect.arrayContaining(isLongRun ? [...COMMON, ...RARE] : COMMON));
    console.log(`${RUNS} orders of frames, SEED=${seed}: ${JSON.stringify(Object.fromEntries(tally))}`);
  },
  LONG_MS,
);
