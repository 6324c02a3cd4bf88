// Members and readers: who comes and goes, what each is sent, and what it does with it.

import type { SendEvent } from "./history.ts";
import { type ModelGroup, type ModelPartition, type Ownership, recordsOf } from "./log-model.ts";
import { type Client, StoryNetwork } from "./story-network.ts";

const FRAME_MAX = 4;
const CLIENTS_MAX = 7;

export class StoryMembers extends StoryNetwork {
  // ── who comes and goes ─────────────────────────────────────────────────────────────────────────────────

  protected join(): void {
    const { billing, mill, ahead } = this.groups;
    if (this.clients.length < CLIENTS_MAX) this.subscribe(this.any([billing, mill, ahead, undefined]));
  }

  protected subscribe(group: ModelGroup | undefined): Client {
    const name = this.nextName(group?.name ?? "reader");
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
    this.clients.push(client);
    if (group) this.model.subscribe(group);
    else this.read(client);
    return client;
  }

  protected read(client: Client): void {
    for (const [index, partition] of this.model.of("orders").entries()) {
      const position = partition.logStartOffset;
      const owner = { consumer: client.name, generation: index + 1, position, furthest: position };
      client.reads.set(partition, owner);
      const partitions = [this.model.describe(undefined, partition, owner)];
      client.inbox.push({ type: "assigned", consumer: client.name, partitions });
    }
  }

  /** Its connection is cut, with what was on the way. */
  protected leave(client: Client | undefined): void {
    if (!client) return;
    // Of what it has asked for some is done, and it never learns of it.
    for (const deed of client.outbox.splice(0, this.dice.below(client.outbox.length + 1))) deed();
    this.disown(client);
    this.late.push(...client.outbox.splice(0));
    this.events.push({ type: "ended", consumer: client.name });
    this.clients = this.clients.filter((each) => each !== client);
  }

  protected disown(client: Client): readonly ModelPartition[] {
    client.isSubscribed = false;
    if (client.group) this.model.use(client.group);
    const owned = [...(client.group?.owners ?? [])].filter(([, { consumer }]) => consumer === client.name);
    for (const [partition] of owned) client.group?.owners.delete(partition);
    return owned.map(([partition]) => partition);
  }

  /** By another connection, which has its partitions in new generations. The older learns of it later. */
  protected takeOver(client: Client | undefined): void {
    if (!client?.group || !client.isSubscribed) return;
    const owned = this.disown(client);
    client.inbox.push({ type: "ended", consumer: client.name });
    const successor = this.subscribe(client.group);
    for (const partition of owned) this.assign(successor, partition);
  }

  /** What nobody owns gets an owner. */
  protected fillOwners(): void {
    for (const group of Object.values(this.groups)) {
      const members = this.membersOf(group);
      if (members.length === 0) continue;
      for (const partition of group.topics.flatMap((topic) => this.model.of(topic)))
        if (!group.owners.has(partition)) this.assign(this.dice.pick(members), partition);
    }
  }

  protected moveOwner(): void {
    const group = this.dice.pick([this.groups.billing, this.groups.mill, this.groups.ahead]);
    const members = this.membersOf(group);
    if (members.length < 2) return;
    const [partition, owner] = this.any([...group.owners]) ?? [];
    if (!partition || !owner) return;
    const heir = this.dice.pick(members.filter(({ name }) => name !== owner.consumer));
    this.revoke(owner, partition);
    this.assign(heir, partition);
  }

  protected revoke({ consumer, generation }: Ownership, { topic, partition }: ModelPartition): void {
    const partitions = [{ topic, partition, generation }];
    this.client(consumer)?.inbox.push({ type: "revoked", consumer, partitions });
  }

  protected assign({ group, inbox, name }: Client, partition: ModelPartition): void {
    if (!group) return;
    const partitions = [this.model.assign(group, partition, name)];
    inbox.push({ type: "assigned", consumer: name, partitions });
  }

  protected membersOf(group: ModelGroup): readonly Client[] {
    return this.clients.filter((client) => client.group === group && client.isSubscribed);
  }

  protected client(consumer: string): Client | undefined {
    return this.clients.find(({ name }) => name === consumer);
  }

  // ── what is sent to consumers ──────────────────────────────────────────────────────────────────────────

  protected fetch(client: Client | undefined): void {
    if (!client?.isSubscribed) return;
    const owned = client.group?.owners ?? client.reads;
    for (const [partition, owner] of owned)
      if (owner.consumer === client.name && this.model.partitions.includes(partition))
        this.fetchOf(client, partition, owner);
  }

  protected fetchOf(client: Client, partition: ModelPartition, owner: Ownership): void {
    const { position, generation } = owner;
    if (position === null || position === partition.values.length) return;
    const isBelow = position < partition.logStartOffset;
    if (isBelow && client.group && this.dice.isLucky(0.7)) {
      const partitions = [this.model.reposition(client.group, partition, owner)];
      client.inbox.push({ type: "assigned", consumer: client.name, partitions });
      return;
    }
    const from = Math.max(position, partition.logStartOffset);
    const next = Math.min(from + this.dice.between(1, FRAME_MAX), partition.values.length);
    owner.position = next;
    owner.furthest = Math.max(owner.furthest, next);
    const { topic, partition: number } = partition;
    const entry = { topic, partition: number, generation, offset: next };
    if (client.group?.isAhead) this.model.commit(client.group, entry);
    client.inbox.push({
      type: "polled",
      consumer: client.name,
      topic,
      partition: number,
      generation,
      records: recordsOf(partition, from, next),
      next,
    });
  }

  // ── what members do with it ────────────────────────────────────────────────────────────────────────────

  protected respond(client: Client | undefined): void {
    if (!client?.group || client.group.isAhead) return;
    if (!this.isEnding && this.dice.isLucky(0.1)) return this.seek(client, client.group);
    if (client.held.size === 0) return;
    if (client.group.name === "mill") this.transact(client);
    else this.ack(client, client.group);
  }

  protected ack(client: Client, group: ModelGroup): void {
    const ack = this.nextName("ack");
    const offsets = [...client.held.values()].map(({ entry }) => entry);
    client.held.clear();
    this.events.push({ type: "acking", consumer: client.name, ack, offsets });
    client.outbox.push(() => {
      const answers = offsets.map((entry) => {
        const { topic, partition } = entry;
        return { topic, partition, ...this.model.commit(group, entry) };
      });
      client.inbox.push({ type: "acked", ack, offsets: answers });
    });
  }

  protected transact(client: Client): void {
    if (client.isAnswerAwaited) return;
    const [name, { entry, offsets }] = this.dice.pick([...client.held]);
    client.held.delete(name);
    const send: SendEvent = {
      type: "send",
      send: this.nextName("send"),
      producer: client.name,
      isIdempotent: false,
      appends: [
        {
          topic: "made",
          values: offsets.map(() => this.nextName("m")),
          sources: offsets.map((offset) => `${name}@${offset}`),
        },
      ],
      commits: { group: "mill", offsets: [entry] },
    };
    this.events.push(send);
    client.isAnswerAwaited = true;
    client.outbox.push(() => {
      const runs = this.model.transact(send);
      const isDone = typeof runs !== "string";
      if (isDone) client.inbox.push({ type: "sent", send: send.send, runs });
      else client.inbox.push({ type: "not-sent", send: send.send, code: runs });
    });
  }

  /** Back, or on. */
  protected seek(client: Client, group: ModelGroup): void {
    const owned = [...group.owners].filter(([, { consumer }]) => consumer === client.name);
    if (owned.length === 0) return;
    const [partition, owner] = this.dice.pick(owned);
    client.outbox.push(() => {
      if (group.owners.get(partition) !== owner) return;
      const position = this.dice.between(partition.logStartOffset, partition.values.length);
      owner.position = position;
      owner.furthest = Math.max(owner.furthest, position);
      const partitions = [this.model.describe(group, partition, { ...owner, isSought: true })];
      client.inbox.push({ type: "assigned", consumer: client.name, partitions });
    });
  }
}
