// Runs inside the server that is measured (bun --preload): how late its event loop comes to a timer of a few
// milliseconds. Answers on a socket of its own, so that nothing of the server has to know.

const INTERVAL_MS = 4;

let delaysMs: number[] = [];
let expectedAtMs = performance.now() + INTERVAL_MS;

function look(): void {
  const nowMs = performance.now();
  delaysMs.push(Math.max(0, nowMs - expectedAtMs));
  expectedAtMs = nowMs + INTERVAL_MS;
  setTimeout(look, INTERVAL_MS).unref();
}

const unix = process.env.BENCH_LOOP_DELAY_SOCKET;
if (unix !== undefined) {
  setTimeout(look, INTERVAL_MS).unref();
  // All since it was last asked.
  Bun.serve({
    unix,
    fetch: () => {
      const answer = Response.json(delaysMs);
      delaysMs = [];
      return answer;
    },
  });
}
