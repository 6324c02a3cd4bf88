// Good histories, from a seed: producers, members, readers and operators of a LogModel, who learn of what has happened
// late, each in its own order, as over a network.

import { Dice } from "../support/dice.ts";
import type { EventOf, History, HistoryEvent, OffsetEntry, SendEvent } from "./history.ts";
import { LogModel, type ModelGroup, type ModelPartition, type Ownership } from "./log-model.ts";

const FRAME_MAX = 4;
const BATCH_MAX = 4;
const PARTITIONS_MAX = 4;
const CLIENTS_MAX = 7;
const ROUNDS_MAX = 500;

export interface GoodHistory {
  readonly history: History;
}

export function goodHistory(seed: number, steps: number): History {
  const story = new Story(new Dice(seed));
  for (let step = 0; step < steps; step += 1) story.step();
  return story.end();
}

/** A subscription, as its client sees it. */
interface Client {
  readonly name: string;
  readonly group: ModelGroup | undefined;
  /** On the way to it. */
  readonly inbox: HistoryEvent[];
  /** What it has asked for and is not done yet. */
  readonly outbox: (() => void)[];
  /** Of each partition the last frame, with what it was sent and has not acknowledged. */
  readonly held: Map<string, Held>;
  /** A reader's partitions: nobody else knows of them. */
  readonly reads: Map<ModelPartition, Ownership>;
  /** The server knows of it. */
  isSubscribed: boolean;
  isAnswerAwaited: boolean;
}

interface Held {
  readonly entry: OffsetEntry;
  readonly offsets: readonly number[];
}

/** What a producer has asked for, in order: some of it is done, and not learned yet. */
interface Producer {
  readonly name: string;
  readonly isIdempotent: boolean;
  readonly outbox: (() => void)[];
  readonly inbox: HistoryEvent[];
}

class Story {
  readonly #dice: Dice;
  readonly #model: LogModel;
  readonly #events: HistoryEvent[] = [];
  readonly #groups: Record<"billing" | "mill" | "ahead" | "outside", ModelGroup>;
  readonly #producers: readonly Producer[];
  #clients: Client[] = [];
  /** What may be carried out at any time, or never. */
  #late: (() => void)[] = [];
  #isEnding = false;
  #names = 0;

  constructor(dice: Dice) {
    this.#dice = dice;
    this.#model = new LogModel(dice);
    const policy = dice.pick(["earliest", "latest", "none"] as const);
    this.#groups = {
      billing: this.#addGroup("billing", { topics: ["orders", "doomed"], policy }),
      mill: this.#addGroup("mill", { topics: ["orders"] }),
      ahead: this.#addGroup("ahead", { topics: ["orders"], isAhead: true }),
      outside: this.#addGroup("outside", { topics: ["orders"] }),
    };
    const [isSequenced, isPlain] = [{ isIdempotent: true }, { isIdempotent: false }];
    this.#producers = [
      { name: "sequenced", ...isSequenced, outbox: [], inbox: [] },
      { name: "plain", ...isPlain, outbox: [], inbox: [] },
    ];
    this.#model.create("orders", 2);
    this.#model.create("made", 1);
    this.#model.create("doomed", 1);
    this.#events.push(this.#model.snapshot());
  }

  step(): void {
    const acts: readonly (readonly [weight: number, act: () => void])[] = [
      [12, () => this.#produce(this.#dice.pick(this.#producers))],
      [12, () => this.#carryOut()],
      [24, () => this.#learn()],
      [20, () => this.#fetch(this.#any(this.#clients))],
      [14, () => this.#respond(this.#any(this.#clients))],
      [4, () => this.#join()],
      [5, () => this.#fillOwners()],
      [1, () => this.#leave(this.#any(this.#clients))],
      [1, () => this.#takeOver(this.#any(this.#clients))],
      [2, () => this.#moveOwner()],
      [1, () => this.#operate()],
      [5, () => this.#look()],
    ];
    let left = this.#dice.below(acts.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, act] of acts) {
      left -= weight;
      if (left < 0) return act();
    }
  }

  /** Everybody finishes. */
  end(): History {
    this.#isEnding = true;
    const groups = [this.#groups.billing, this.#groups.mill, this.#groups.ahead];
    for (let round = 0; round < ROUNDS_MAX && !groups.every((group) => this.#isDone(group)); round += 1) {
      for (const group of groups)
        if (!this.#clients.some((client) => client.group === group)) this.#subscribe(group);
      this.#fillOwners();
      for (const producer of this.#producers) this.#finish(producer);
      for (const client of this.#clients) {
        this.#fetch(client);
        this.#finish(client);
        this.#respond(client);
        this.#finish(client);
      }
      this.#placeAll();
    }
    for (const client of [...this.#clients]) this.#finish(client);
    this.#look();
    const settled = groups.map(({ name, topics }) => ({ group: name, topics }));
    this.#events.push({ type: "settled", groups: settled }, ...this.#model.logs());
    return this.#events;
  }

  // ── who produces ───────────────────────────────────────────────────────────────────────────────────────

  #produce(producer: Producer): void {
    const { name, isIdempotent, outbox, inbox } = producer;
    // Without sequences each begins when the one before is answered, or given up.
    if (!isIdempotent && outbox.length + inbox.length > 0) return;
    const topic = isIdempotent ? "orders" : this.#dice.pick(["orders", "doomed"]);
    const values = Array.from({ length: this.#dice.between(1, BATCH_MAX) }, () => this.#nextName("v"));
    const event = { type: "send", send: this.#nextName("send"), producer: name, isIdempotent } as const;
    const send = { ...event, appends: [{ topic, values }] };
    this.#events.push(send);
    const fate = isIdempotent ? "written" : this.#dice.pick(["written", "written", "refused", "unknown"]);
    if (fate === "unknown") this.#late.push(() => this.#model.append(topic, values));
    if (fate === "written") outbox.push(() => inbox.push(this.#answer(send)));
    if (fate === "refused")
      outbox.push(() => inbox.push({ type: "not-sent", send: send.send, code: "unavailable" }));
  }

  #answer({ send, appends }: SendEvent): EventOf<"sent"> | EventOf<"not-sent"> {
    const runs = appends.flatMap(({ topic, values }) => this.#model.append(topic, values) ?? []);
    if (runs.length === 0) return { type: "not-sent", send, code: "unknown_topic" };
    return { type: "sent", send, runs: this.#dice.isLucky(0.1) ? [] : runs };
  }

  // ── what is under way ──────────────────────────────────────────────────────────────────────────────────

  /** One of what was asked for. */
  #carryOut(): void {
    const boxes = [...this.#producers, ...this.#clients].filter(({ outbox }) => outbox.length > 0);
    if (boxes.length > 0) this.#dice.pick(boxes).outbox.shift()?.();
    if (this.#dice.isLucky(0.1)) this.#late.splice(this.#dice.below(this.#late.length), 1)[0]?.();
  }

  #learn(): void {
    const boxes = [...this.#producers, ...this.#clients].filter(({ inbox }) => inbox.length > 0);
    if (boxes.length > 0) this.#learnNext(this.#dice.pick(boxes));
  }

  #learnNext(actor: Producer | Client): void {
    const event = actor.inbox.shift();
    if (!event) return;
    this.#events.push(event);
    if ("held" in actor) this.#note(actor, event);
  }

  #finish(actor: Producer | Client): void {
    while (actor.inbox.length + actor.outbox.length > 0) {
      this.#learnNext(actor);
      actor.outbox.shift()?.();
    }
  }

  #note(client: Client, event: HistoryEvent): void {
    if (event.type === "polled") {
      const { topic, partition, generation, next, records } = event;
      const entry = { topic, partition, generation, offset: next };
      const before = client.held.get(nameOf(event))?.offsets ?? [];
      client.held.set(nameOf(event), { entry, offsets: [...before, ...records.map(({ offset }) => offset)] });
    }
    if (event.type === "assigned") for (const each of event.partitions) client.held.delete(nameOf(each));
    // Some finish what they hold.
    if (event.type === "revoked" && this.#dice.isLucky(0.5))
      for (const each of event.partitions) client.held.delete(nameOf(each));
    if (event.type === "sent" || event.type === "not-sent") client.isAnswerAwaited = false;
    if (event.type === "ended") this.#clients = this.#clients.filter((each) => each !== client);
  }

  // ── who comes and goes ─────────────────────────────────────────────────────────────────────────────────

  #join(): void {
    const { billing, mill, ahead } = this.#groups;
    if (this.#clients.length < CLIENTS_MAX) this.#subscribe(this.#any([billing, mill, ahead, undefined]));
  }

  #subscribe(group: ModelGroup | undefined): Client {
    const name = this.#nextName(group?.name ?? "reader");
    const client: Client = {
      name,
      group,
      inbox: [],
      outbox: [],
      held: new Map(),
      reads: new Map(),
      isSubscribed: true,
      isAnswerAwaited: false,
    };
    client.inbox.push({
      type: "subscribed",
      consumer: name,
      group: group?.name ?? null,
      memberId: name,
      isCommittedAhead: group?.isAhead ?? false,
    });
    this.#clients.push(client);
    if (group) this.#model.subscribe(group);
    else this.#read(client);
    return client;
  }

  #read(client: Client): void {
    for (const [index, partition] of this.#model.of("orders").entries()) {
      const position = partition.logStartOffset;
      const owner = { consumer: client.name, generation: index + 1, position, furthest: position };
      client.reads.set(partition, owner);
      const partitions = [this.#model.describe(undefined, partition, owner)];
      client.inbox.push({ type: "assigned", consumer: client.name, partitions });
    }
  }

  /** Its connection is cut, with what was on the way. */
  #leave(client: Client | undefined): void {
    if (!client) return;
    // Of what it has asked for some is done, and it never learns of it.
    for (const deed of client.outbox.splice(0, this.#dice.below(client.outbox.length + 1))) deed();
    this.#disown(client);
    this.#late.push(...client.outbox.splice(0));
    this.#events.push({ type: "ended", consumer: client.name });
    this.#clients = this.#clients.filter((each) => each !== client);
  }

  #disown(client: Client): readonly ModelPartition[] {
    client.isSubscribed = false;
    const owned = [...(client.group?.owners ?? [])].filter(([, { consumer }]) => consumer === client.name);
    for (const [partition] of owned) client.group?.owners.delete(partition);
    return owned.map(([partition]) => partition);
  }

  /** By another connection, which has its partitions in new generations. The older learns of it later. */
  #takeOver(client: Client | undefined): void {
    if (!client?.group || !client.isSubscribed) return;
    const owned = this.#disown(client);
    client.inbox.push({ type: "ended", consumer: client.name });
    const successor = this.#subscribe(client.group);
    for (const partition of owned) this.#assign(successor, partition);
  }

  /** What nobody owns gets an owner. */
  #fillOwners(): void {
    for (const group of Object.values(this.#groups)) {
      const members = this.#membersOf(group);
      if (members.length === 0) continue;
      for (const partition of group.topics.flatMap((topic) => this.#model.of(topic)))
        if (!group.owners.has(partition)) this.#assign(this.#dice.pick(members), partition);
    }
  }

  #moveOwner(): void {
    const group = this.#dice.pick([this.#groups.billing, this.#groups.mill, this.#groups.ahead]);
    const members = this.#membersOf(group);
    if (members.length < 2) return;
    const [partition, owner] = this.#any([...group.owners]) ?? [];
    if (!partition || !owner) return;
    const heir = this.#dice.pick(members.filter(({ name }) => name !== owner.consumer));
    this.#revoke(owner, partition);
    this.#assign(heir, partition);
  }

  #revoke({ consumer, generation }: Ownership, { topic, partition }: ModelPartition): void {
    const partitions = [{ topic, partition, generation }];
    this.#client(consumer)?.inbox.push({ type: "revoked", consumer, partitions });
  }

  #assign({ group, inbox, name }: Client, partition: ModelPartition): void {
    if (!group) return;
    const partitions = [this.#model.assign(group, partition, name)];
    inbox.push({ type: "assigned", consumer: name, partitions });
  }

  #membersOf(group: ModelGroup): readonly Client[] {
    return this.#clients.filter((client) => client.group === group && client.isSubscribed);
  }

  #client(consumer: string): Client | undefined {
    return this.#clients.find(({ name }) => name === consumer);
  }

  // ── what is sent to consumers ──────────────────────────────────────────────────────────────────────────

  #fetch(client: Client | undefined): void {
    if (!client?.isSubscribed) return;
    const owned = client.group?.owners ?? client.reads;
    for (const [partition, owner] of owned)
      if (owner.consumer === client.name && this.#model.partitions.includes(partition))
        this.#fetchOf(client, partition, owner);
  }

  #fetchOf(client: Client, partition: ModelPartition, owner: Ownership): void {
    const { position, generation } = owner;
    if (position === null || position === partition.values.length) return;
    const isBelow = position < partition.logStartOffset;
    if (isBelow && client.group && this.#dice.isLucky(0.7)) {
      const partitions = [this.#model.reposition(client.group, partition, owner)];
      client.inbox.push({ type: "assigned", consumer: client.name, partitions });
      return;
    }
    const from = Math.max(position, partition.logStartOffset);
    const next = Math.min(from + this.#dice.between(1, FRAME_MAX), partition.values.length);
    owner.position = next;
    owner.furthest = Math.max(owner.furthest, next);
    const { topic, partition: number } = partition;
    const entry = { topic, partition: number, generation, offset: next };
    if (client.group?.isAhead) this.#model.commit(client.group, entry);
    const all = partition.values.map((value, offset) => ({ offset, value }));
    client.inbox.push({
      type: "polled",
      consumer: client.name,
      topic,
      partition: number,
      generation,
      records: all.slice(from, next),
      next,
    });
  }

  // ── what members do with it ────────────────────────────────────────────────────────────────────────────

  #respond(client: Client | undefined): void {
    if (!client?.group || client.group.isAhead) return;
    if (!this.#isEnding && this.#dice.isLucky(0.1)) return this.#seek(client, client.group);
    if (client.held.size === 0) return;
    if (client.group.name === "mill") this.#transact(client);
    else this.#ack(client, client.group);
  }

  #ack(client: Client, group: ModelGroup): void {
    const ack = this.#nextName("ack");
    const offsets = [...client.held.values()].map(({ entry }) => entry);
    client.held.clear();
    this.#events.push({ type: "acking", consumer: client.name, ack, offsets });
    client.outbox.push(() => {
      const answers = offsets.map((entry) => {
        const { topic, partition } = entry;
        return { topic, partition, ...this.#model.commit(group, entry) };
      });
      client.inbox.push({ type: "acked", ack, offsets: answers });
    });
  }

  #transact(client: Client): void {
    if (client.isAnswerAwaited) return;
    const [name, { entry, offsets }] = this.#dice.pick([...client.held]);
    client.held.delete(name);
    const send: SendEvent = {
      type: "send",
      send: this.#nextName("send"),
      producer: client.name,
      isIdempotent: false,
      appends: [
        {
          topic: "made",
          values: offsets.map(() => this.#nextName("m")),
          sources: offsets.map((offset) => `${name}@${offset}`),
        },
      ],
      commits: { group: "mill", offsets: [entry] },
    };
    this.#events.push(send);
    client.isAnswerAwaited = true;
    client.outbox.push(() => {
      const runs = this.#model.transact(send);
      const isDone = typeof runs !== "string";
      if (isDone) client.inbox.push({ type: "sent", send: send.send, runs });
      else client.inbox.push({ type: "not-sent", send: send.send, code: runs });
    });
  }

  /** Back, or on. */
  #seek(client: Client, group: ModelGroup): void {
    const owned = [...group.owners].filter(([, { consumer }]) => consumer === client.name);
    if (owned.length === 0) return;
    const [partition, owner] = this.#dice.pick(owned);
    client.outbox.push(() => {
      if (group.owners.get(partition) !== owner) return;
      const position = this.#dice.between(partition.logStartOffset, partition.values.length);
      owner.position = position;
      owner.furthest = Math.max(owner.furthest, position);
      const partitions = [this.#model.describe(group, partition, { ...owner, isSought: true })];
      client.inbox.push({ type: "assigned", consumer: client.name, partitions });
    });
  }

  // ── who changes things while they are in use ───────────────────────────────────────────────────────────

  #operate(): void {
    const { billing, mill, ahead, outside } = this.#groups;
    const act = this.#dice.below(6);
    const partition = this.#dice.pick(this.#model.partitions);
    const anywhere = this.#dice.between(partition.logStartOffset, partition.values.length);
    if (act <= 1) this.#reset(this.#dice.pick([billing, mill, ahead]));
    if (act === 2 && partition.topic !== "made") partition.logStartOffset = anywhere;
    if (act === 3 && this.#model.of("orders").length < PARTITIONS_MAX) this.#model.grow("orders");
    if (act === 4) this.#renewTopic("doomed");
    if (act === 5) this.#commitFromOutside(outside);
  }

  #reset(group: ModelGroup): void {
    const [partition, committed] = this.#any([...group.committed]) ?? [];
    if (!partition || committed === undefined) return;
    const offset = this.#dice.between(partition.logStartOffset, partition.values.length);
    this.#resetTo(group, partition, offset);
  }

  #resetTo(group: ModelGroup, partition: ModelPartition, offset: number): void {
    const client = this.#client(group.owners.get(partition)?.consumer ?? "");
    this.#model.reset(group, partition, { offset, cause: "reset: why not" });
    group.owners.delete(partition);
    if (client) this.#assign(client, partition);
  }

  #renewTopic(topic: string): void {
    if (this.#model.of(topic).length === 0) return this.#model.create(topic, this.#dice.between(1, 2));
    for (const owner of this.#model.delete(topic)) this.#revoke(owner, owner.partition);
  }

  #commitFromOutside(group: ModelGroup): void {
    const partition = this.#dice.pick(this.#model.of("orders"));
    const offset = this.#dice.between(partition.logStartOffset, partition.values.length);
    const { topic, partition: number } = partition;
    this.#events.push({ type: "passing", group: group.name, topic, partition: number, offset });
    this.#late.push(() => {
      group.committed.set(partition, Math.max(group.committed.get(partition) ?? 0, offset));
    });
  }

  #look(): void {
    this.#events.push(this.#model.snapshot());
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────

  #isDone(group: ModelGroup): boolean {
    const isIdle = [...this.#producers, ...this.#clients].every(
      ({ inbox, outbox }) => inbox.length + outbox.length === 0,
    );
    const partitions = group.topics.flatMap((topic) => this.#model.of(topic));
    return isIdle && partitions.every((each) => group.committed.get(each) === each.values.length);
  }

  /** Who waits for a place is given one, and so is who has lost what it held. */
  #placeAll(): void {
    for (const group of Object.values(this.#groups))
      for (const [partition, { position, consumer }] of [...group.owners]) {
        const committed = group.committed.get(partition) ?? partition.logStartOffset;
        const isAtEnd = position === partition.values.length && committed !== position;
        const isLost = isAtEnd && !this.#client(consumer)?.held.has(nameOf(partition));
        if (position === null || isLost)
          this.#resetTo(group, partition, Math.max(committed, partition.logStartOffset));
      }
  }

  // ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #addGroup(name: string, options: Pick<ModelGroup, "topics"> & Partial<ModelGroup>): ModelGroup {
    const group: ModelGroup = {
      name,
      policy: "earliest",
      isAhead: false,
      committed: new Map(),
      owners: new Map(),
      topicsSeen: new Set(),
      partitionsSeen: new Set(),
      ...options,
    };
    this.#model.groups.push(group);
    return group;
  }

  #any<T>(items: readonly T[]): T | undefined {
    return items[this.#dice.below(items.length)];
  }

  #nextName(what: string): string {
    this.#names += 1;
    return `${what}${this.#names}`;
  }
}

function nameOf({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic}/${partition}`;
}
