// Whoever makes it go wrong: each disaster comes by itself, again and again, until the chaos ends, and then mends what
// it has broken.

import type { Dice } from "../support/dice.ts";
import type { Disasters } from "./faults.ts";
import type { World } from "./world.ts";

const DOWN_MIN_MS = 50;
const DOWN_MAX_MS = 20_000;
const LOCK_MAX_MS = 14_000;
const RESTART_MS = 100;
const CLOCK_STEP_MAX_MS = 60_000;

type Act = (world: World, dice: Dice) => Promise<void>;

const ACTS: Readonly<Record<keyof Disasters, Act>> = {
  async crash(world, dice) {
    const index = dice.below(world.servers.length);
    const server = world.servers[index];
    world.note(`nemesis: kill ${server?.name}`);
    server?.kill();
    await pass(world, dice);
    await world.startServer(index);
  },

  async stop(world, dice) {
    const index = dice.below(world.servers.length);
    const server = world.servers[index];
    world.note(`nemesis: stop ${server?.name}`);
    await server?.stop();
    await pass(world, dice);
    await world.startServer(index);
  },

  async freeze(world, dice) {
    const server = dice.pick(world.servers);
    world.note(`nemesis: freeze ${server.name}`);
    server.clock.freeze();
    await pass(world, dice);
    world.note(`nemesis: thaw ${server.name}`);
    server.clock.thaw();
  },

  async cutOff(world, dice) {
    const server = dice.pick(world.servers);
    world.note(`nemesis: cut off ${server.name}`);
    server.cutOff(true);
    await pass(world, dice);
    world.note(`nemesis: let back ${server.name}`);
    server.cutOff(false);
  },

  async lock(world, dice) {
    world.note("nemesis: lock");
    world.database.isLocked = true;
    await pass(world, dice, LOCK_MAX_MS);
    world.note("nemesis: unlock");
    world.database.isLocked = false;
  },

  async outage(world, dice) {
    world.note("nemesis: the database is down");
    world.database.isDown = true;
    await pass(world, dice);
    world.note("nemesis: the database is up");
    world.database.isDown = false;
  },

  async clockStep(world, dice) {
    const step = dice.spread(100, CLOCK_STEP_MAX_MS) * (dice.isLucky(0.5) ? 1 : -1);
    world.note(`nemesis: the database's clock goes ${step} ms`);
    world.stepClock(step);
  },

  async hangUp(world, dice) {
    const { sockets } = world;
    if (sockets.length > 0) dice.pick(sockets).hangUp({ isCut: true });
  },

  async slowSocket(world, dice) {
    const { sockets } = world;
    if (sockets.length === 0) return;
    const socket = dice.pick(sockets);
    socket.isSlow = true;
    await pass(world, dice);
    socket.isSlow = false;
  },
};

/** Resolves when the chaos is over and all is mended. */
export async function unleash(world: World): Promise<void> {
  const kinds = Object.keys(ACTS) as (keyof Disasters)[]; // its own keys
  await Promise.all(kinds.map((kind) => repeat(world, kind)));
}

async function repeat(world: World, kind: keyof Disasters): Promise<void> {
  const everyMs = world.faults.disasters[kind];
  const dice = world.dice.fork(`nemesis ${kind}`);
  if (everyMs === undefined) return;
  for (;;) {
    await world.time.sleep(dice.random() * 2 * everyMs);
    if (!world.isChaos) return;
    await ACTS[kind](world, dice);
  }
}

/** With the end of the chaos at the latest. */
async function pass(world: World, dice: Dice, maxMs = DOWN_MAX_MS): Promise<void> {
  await Promise.race([world.time.sleep(dice.spread(DOWN_MIN_MS, maxMs)), world.chaosEnds]);
}

/** Everybody up, whoever was killed while another disaster had it. */
export async function mend(world: World): Promise<void> {
  world.database.isDown = false;
  world.database.isLocked = false;
  for (const server of world.servers) {
    server.clock.thaw();
    server.cutOff(false);
  }
  for (const index of world.servers.keys())
    while (!world.servers[index]?.isReady) {
      await world.startServer(index);
      await world.time.sleep(RESTART_MS);
    }
}
