// Time, chance and the log, as every runtime has them.

import type { Chance, Log, Scheduler } from "../core/ports.ts";

export const scheduler: Scheduler = {
  nowMs: () => performance.now(),
  after: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
  soon: (run) => void setImmediate(run),
};

export const chance: Chance = { random: () => Math.random(), newId: () => crypto.randomUUID() };

/** To standard error, or what the platform has in its place. */
export const log: Log = (event, facts = {}) => {
  const told = Object.entries(facts).filter(([, value]) => value !== undefined);
  const line = [
    `event=${JSON.stringify(event)}`,
    ...told.map(([name, value]) => `${name}=${JSON.stringify(value)}`),
  ];
  console.error(`${new Date().toISOString()} ${line.join(" ")}`);
};
