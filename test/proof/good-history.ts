// Good histories, from a seed: producers, members, readers and operators of a LogModel, who learn of what has happened
// late.

import { Dice } from "../support/dice.ts";
import type { EventOf, History, SendEvent } from "./history.ts";
import type { ModelGroup, ModelPartition } from "./log-model.ts";
import { StoryKeepers } from "./story-keepers.ts";
import { nameOf, type Producer } from "./story-network.ts";

const BATCH_MAX = 4;
const KEYS = 4;
const PARTITIONS_MAX = 4;
const ROUNDS_MAX = 500;

export function goodHistory(seed: number, steps: number): History {
  const story = new Story(new Dice(seed));
  for (let step = 0; step < steps; step += 1) story.step();
  return story.end();
}

class Story extends StoryKeepers {
  step(): void {
    this.pass();
    const acts: readonly (readonly [weight: number, act: () => void])[] = [
      [12, () => this.produce(this.dice.pick(this.producers))],
      [12, () => this.carryOut()],
      [24, () => this.learn()],
      [20, () => this.fetch(this.any(this.clients))],
      [14, () => this.respond(this.any(this.clients))],
      [4, () => this.join()],
      [5, () => this.fillOwners()],
      [1, () => this.leave(this.any(this.clients))],
      [1, () => this.takeOver(this.any(this.clients))],
      [4, () => this.moveOwner()],
      [4, () => this.operate()],
      [this.areKeepersBusy ? 10 : 1, () => this.keep()],
      [1, () => this.stepClock()],
      [5, () => this.look()],
    ];
    let left = this.dice.below(acts.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, act] of acts) {
      left -= weight;
      if (left < 0) return act();
    }
  }

  /** Everybody finishes. */
  end(): History {
    this.isEnding = true;
    const groups = [this.groups.billing, this.groups.mill, this.groups.ahead];
    for (let round = 0; round < ROUNDS_MAX && !groups.every((group) => this.isDone(group)); round += 1) {
      for (const group of groups)
        if (!this.clients.some((client) => client.group === group)) this.subscribe(group);
      this.fillOwners();
      for (const producer of this.producers) this.finish(producer);
      for (const client of this.clients) {
        this.fetch(client);
        this.finish(client);
        this.respond(client);
        this.finish(client);
      }
      this.placeAll();
    }
    for (const client of [...this.clients]) this.finish(client);
    this.look();
    const settled = groups.map(({ name, topics }) => ({ group: name, topics }));
    this.events.push({ type: "settled", groups: settled }, ...this.model.logs());
    return this.events;
  }

  // ── who produces ───────────────────────────────────────────────────────────────────────────────────────

  protected produce(producer: Producer): void {
    const { name, isIdempotent, outbox, inbox } = producer;
    // Without sequences each begins when the one before is answered, or given up.
    if (!isIdempotent && outbox.length + inbox.length > 0) return;
    const topic = isIdempotent ? "orders" : this.dice.pick(["orders", "doomed"]);
    const values = Array.from({ length: this.dice.between(1, BATCH_MAX) }, () => this.nextName("v"));
    const event = { type: "send", send: this.nextName("send"), producer: name, isIdempotent } as const;
    const keys = values.map(() => (this.hasKeys ? `k${this.dice.below(KEYS)}` : null));
    const tombstones = values.filter(() => this.hasKeys && this.dice.isLucky(0.2));
    const append = { topic, values, keys, tombstones };
    const send = { ...event, appends: [append] };
    this.events.push(send);
    const fate = isIdempotent ? "written" : this.dice.pick(["written", "written", "refused", "unknown"]);
    if (fate === "unknown") this.late.push(() => this.model.append(append));
    if (fate === "written") outbox.push(() => inbox.push(this.answer(send)));
    if (fate === "refused")
      outbox.push(() => inbox.push({ type: "not-sent", send: send.send, code: "unavailable" }));
  }

  protected answer({ send, appends }: SendEvent): EventOf<"sent"> | EventOf<"not-sent"> {
    const runs = appends.flatMap((append) => this.model.append(append) ?? []);
    if (runs.length === 0) return { type: "not-sent", send, code: "unknown_topic" };
    return { type: "sent", send, runs: this.dice.isLucky(0.1) ? [] : runs };
  }

  // ── who changes things while they are in use ───────────────────────────────────────────────────────────

  protected operate(): void {
    const { billing, mill, ahead, outside } = this.groups;
    const act = this.dice.below(5);
    if (act <= 1) this.reset(this.dice.pick([billing, mill, ahead]));
    if (act === 2 && this.model.of("orders").length < PARTITIONS_MAX) this.model.grow("orders");
    if (act === 3) this.renewTopic("doomed");
    if (act === 4) this.commitFromOutside(outside);
  }

  protected reset(group: ModelGroup): void {
    const [partition, committed] = this.any([...group.committed]) ?? [];
    if (!partition || committed === undefined) return;
    const { logStartOffset, values } = partition;
    const isBack = this.dice.isLucky(0.5) && committed > logStartOffset;
    const offset = this.dice.between(logStartOffset, isBack ? committed - 1 : values.length);
    const isWatched = this.dice.isLucky(0.5);
    if (isWatched) this.look();
    this.resetTo(group, partition, offset);
    if (isWatched) this.look();
  }

  protected resetTo(group: ModelGroup, partition: ModelPartition, offset: number): void {
    const client = this.client(group.owners.get(partition)?.consumer ?? "");
    this.model.reset(group, partition, { offset, cause: "reset: why not" });
    group.owners.delete(partition);
    if (client) this.assign(client, partition);
  }

  protected renewTopic(topic: string): void {
    if (this.model.of(topic).length === 0) return this.model.create(topic, this.dice.between(1, 2));
    for (const owner of this.model.delete(topic)) this.revoke(owner, owner.partition);
  }

  protected commitFromOutside(group: ModelGroup): void {
    const partition = this.dice.pick(this.model.of("orders"));
    const offset = this.dice.between(partition.logStartOffset, partition.values.length);
    const { topic, partition: number } = partition;
    this.events.push({ type: "passing", group: group.name, topic, partition: number, offset });
    this.late.push(() => {
      this.model.use(group);
      group.committed.set(partition, Math.max(group.committed.get(partition) ?? 0, offset));
    });
  }

  protected look(): void {
    this.events.push(this.model.snapshot((group) => this.membersOf(group).length > 0));
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────

  protected isDone(group: ModelGroup): boolean {
    const isIdle = [...this.producers, ...this.clients].every(
      ({ inbox, outbox }) => inbox.length + outbox.length === 0,
    );
    const partitions = group.topics.flatMap((topic) => this.model.of(topic));
    return isIdle && partitions.every((each) => group.committed.get(each) === each.values.length);
  }

  /** Who waits for a place is given one, and so is who has lost what it held. */
  protected placeAll(): void {
    for (const group of Object.values(this.groups))
      for (const [partition, { position, consumer }] of [...group.owners]) {
        const committed = group.committed.get(partition) ?? partition.logStartOffset;
        const isAtEnd = position === partition.values.length && committed !== position;
        const isLost = isAtEnd && !this.client(consumer)?.held.has(nameOf(partition));
        if (position === null || isLost)
          this.resetTo(group, partition, Math.max(committed, partition.logStartOffset));
      }
  }
}
