// What must not outlive the runner when somebody stops it: processes that it has started, disks that it has mounted.

const rites = new Set<() => void>();

/** Returns what to call when it was done in the ordinary way. */
export function onBrokenOff(undo: () => void): () => void {
  rites.add(undo);
  return () => void rites.delete(undo);
}

/** In the command only: a test runner has its own way to stop. */
export function stopOnSignals(): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.on(signal, () => {
      for (const undo of [...rites].reverse()) undo();
      process.exit(130);
    });
}

/** It may be gone already. */
export function killNow(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (Object(error).code !== "ESRCH") throw error;
  }
}
