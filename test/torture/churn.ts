// Topics that come, are written to, trimmed, and deleted with all that is in them: deletions that a kill leaves half done
// are finished by whoever starts next.

import { askUntilDone } from "./asking.ts";
import type { Load } from "./load.ts";
import { eventOf, type Send, sendOverHttp } from "./sends.ts";

const RECORDS = 400;
const SENDS = 4;

export async function churnTopics(load: Load, name: string): Promise<void> {
  while (load.isSending) {
    const topic = load.recorder.name(`${name}-topic`);
    const path = `/v1/topics/${topic}`;
    await askUntilDone(load, { method: "PUT", path, wanted: [200, 201] });
    for (let sequence = 0; sequence < SENDS && load.isSending; sequence += 1) {
      await load.recorder.opened();
      const send = newSend(load, topic, sequence);
      load.recorder.write(eventOf(send));
      await sendOverHttp(load, send);
    }
    // Less than is there for sure.
    const before = load.dice.between(0, load.isSending ? RECORDS * SENDS : 0);
    const trim = `${path}/partitions/0/records?before=${before}`;
    await askUntilDone(load, { method: "DELETE", path: trim, wanted: [200] });
    // Some stay, for the end to look at.
    if (load.dice.isLucky(0.9)) await askUntilDone(load, { method: "DELETE", path, wanted: [204, 404] });
    await load.pace();
  }
}

function newSend(load: Load, topic: string, sequence: number): Send {
  const name = load.recorder.name(topic);
  const values = Array.from({ length: RECORDS }, (_, n) => `${name}.${n}`);
  return { name, producer: topic, sequence, appends: [{ topic, values }] };
}
