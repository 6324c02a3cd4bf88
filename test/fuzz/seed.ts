/** `SEED=… bun test test/fuzz` plays a run again. */
export function seedOfRun(): number {
  const given = process.env.SEED;
  return given === undefined ? Date.now() % 2 ** 32 : Number(given);
}
