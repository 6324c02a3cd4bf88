// Topics that come, are written to, trimmed, and deleted with all that is in them: deletions that a kill leaves half done
// are finished by whoever starts next.

import type { Load } from "./load.ts";
import { eventOf, type Send, sendOverHttp } from "./sends.ts";

const RECORDS = 400;
const SENDS = 4;
const RETRY_MS = 20;
const PATIENCE_MS = 3_000;

export async function churnTopics(load: Load, name: string): Promise<void> {
  while (load.isSending) {
    const topic = load.recorder.name(`${name}-topic`);
    await until(load, "PUT", `/v1/topics/${topic}`, [200, 201]);
    for (let sequence = 0; sequence < SENDS; sequence += 1) {
      await load.recorder.opened();
      const send = newSend(load, { topic, producer: topic, sequence });
      load.recorder.write(eventOf(send));
      await sendOverHttp(load, send);
    }
    const before = load.dice.between(1, RECORDS * SENDS);
    await until(load, "DELETE", `/v1/topics/${topic}/partitions/0/records?before=${before}`, [200]);
    // Some stay, for the end to look at.
    if (load.dice.says(0.9)) await until(load, "DELETE", `/v1/topics/${topic}`, [204, 404]);
    await load.pace();
  }
}

function newSend(
  load: Load,
  { topic, producer, sequence }: { topic: string; producer: string; sequence: number },
): Send {
  const name = load.recorder.name(producer);
  const values = Array.from({ length: RECORDS }, (_, n) => `${name}.${n}`);
  return { name, producer, sequence, appends: [{ topic, values }] };
}

/** Again and again until the answer is one of these; whatever is done twice here is done once. */
async function until(load: Load, method: string, path: string, wanted: readonly number[]): Promise<void> {
  for (;;) {
    const { url } = await load.stage.pick();
    load.tally.asked();
    try {
      const signal = AbortSignal.timeout(PATIENCE_MS);
      const response = await fetch(url + path, { method, keepalive: false, signal });
      const text = await response.text();
      load.tally.ended("answered");
      if (wanted.includes(response.status)) return;
      if (response.status < 500) {
        load.problems.push(`${method} ${path} was answered ${response.status} ${text}`);
        return;
      }
    } catch {
      load.tally.ended("cut");
    }
    await Bun.sleep(RETRY_MS); // as a client would: there is nothing to wait for
  }
}
