// subscribe and unsubscribe, and who has what before and after.

import { expect } from "bun:test";
import type { ClientFrame, SubscribeFrame } from "../../../src/protocol/frames.ts";
import { type Asked, FrameCommand, refused, type Speaker, UNKNOWN_SUBSCRIPTION } from "./command.ts";
import { type Expected, GROUP, type Model, SESSION_TIMEOUT_MS, TOPIC } from "./model.ts";
import type { Real } from "./real.ts";
import type { View } from "./view.ts";

export interface SubscribeOptions {
  readonly kind: "member" | "instance" | "takeover" | "reader";
  readonly ack: "manual" | "none";
  readonly records: number;
  readonly reset: "earliest" | "latest";
  /** Which instance, or which member is taken over. */
  readonly which: number;
}

export class Subscribe extends FrameCommand {
  readonly options: SubscribeOptions;

  constructor(speaker: Speaker, options: SubscribeOptions) {
    super(speaker);
    this.options = options;
  }

  ask(model: Model): Asked {
    const { kind, ack, records, reset, which } = this.options;
    const frame: SubscribeFrame = {
      type: "subscribe",
      subscription: this.speaker.name,
      topics: [TOPIC],
      ack,
      window: { records },
      ...(kind === "reader"
        ? { from: reset }
        : { group: GROUP, reset, sessionTimeoutMs: SESSION_TIMEOUT_MS }),
      ...(kind === "instance" && { instanceId: `tab-${which % 2}` }),
      ...(kind === "takeover" && { memberId: this.#victimOf(model) }),
    };
    return { frame, expected: this.#expect(model, frame) };
  }

  /** A name that is taken is refused: once in a while is enough. */
  override check(model: Readonly<Model>): boolean {
    return this.speaker.isLost || !model.view(this.speaker.socket, this.speaker.name);
  }

  /** Alone: a takeover gives exactly what was taken over, and moves nobody else. */
  override async run(model: Model, real: Real): Promise<void> {
    const { frame, expected } = this.ask(model);
    const shares = sharesOf(model);
    const victims = frame.type === "subscribe" ? takenOverBy(model, frame) : [];
    const isFirst = !model.isGroupThere && expected.type === "subscribed" && this.options.kind !== "reader";
    const ends = [...model.ends];
    real.say(this.speaker.socket, model.ask(this.speaker.socket, frame, expected));
    await real.settle(model);
    if (isFirst)
      expectPolicy(
        model,
        ends.map((end) => (this.options.reset === "latest" ? end : 0)),
      );
    if (!shares || expected.type === "error" || this.options.kind === "reader") return;
    expectNobodyElseGains(shares, model, this.view(model)?.memberId);
    const [victim, ...others] = victims;
    if (victim?.memberId !== undefined && others.length === 0)
      expect([...(this.view(model)?.held.keys() ?? [])].sort()).toEqual(
        [...(shares.get(victim.memberId) ?? [])].sort(),
      );
  }

  #victimOf({ members }: Model): string {
    return members[this.options.which % members.length]?.memberId ?? "nobody";
  }

  #expect(model: Model, frame: SubscribeFrame): Expected {
    const { socket, name } = this.speaker;
    if (model.view(socket, name)) return refused("conflict");
    const takenOver = takenOverBy(model, frame);
    const own = [...(model.sockets[socket]?.values() ?? [])].filter(({ isReader }) => !isReader);
    if (frame.group !== undefined && own.some((view) => !takenOver.includes(view)))
      return refused("conflict");
    const isThere = frame.memberId !== undefined && model.isMemberThere(frame.memberId);
    return { type: "subscribed", subscription: name, ...(isThere && { memberId: frame.memberId }) };
  }

  override toString(): string {
    return this.said({ subscribe: this.options });
  }
}

function takenOverBy({ members }: Model, { memberId, instanceId }: SubscribeFrame): readonly View[] {
  return members.filter(
    (view) =>
      (memberId !== undefined && view.memberId === memberId) ||
      (instanceId !== undefined && view.instanceId === instanceId),
  );
}

export class Unsubscribe extends FrameCommand {
  ask(model: Model): Asked {
    const { name } = this.speaker;
    const frame: ClientFrame = { type: "unsubscribe", subscription: name };
    return {
      frame,
      expected: this.view(model) ? { type: "unsubscribed", subscription: name } : UNKNOWN_SUBSCRIPTION,
    };
  }

  /** Alone: who stays loses nothing. */
  override async run(model: Model, real: Real): Promise<void> {
    const shares = sharesOf(model);
    const leaving = this.view(model)?.memberId;
    await super.run(model, real);
    if (shares) expectNobodyLoses(shares, model, leaving);
  }

  override toString(): string {
    return this.said("unsubscribe");
  }
}

// ── who has what ─────────────────────────────────────────────────────────────────────────────────────────

type Shares = ReadonlyMap<string, readonly number[]>;

/** By member; undefined where something is on its way, or is held by a member that is away. */
function sharesOf({ members, detached }: Model): Shares | undefined {
  const isMoving = members.some(({ held }) => [...held.values()].some(({ isRevoked }) => isRevoked));
  if (isMoving || detached.length > 0) return undefined;
  return new Map(members.map(({ memberId = "", held }) => [memberId, [...held.keys()]]));
}

function expectNobodyElseGains(before: Shares, { members }: Model, joined: string | undefined): void {
  for (const { memberId = "", held } of members)
    if (memberId !== joined)
      expect(before.get(memberId) ?? []).toEqual(expect.arrayContaining([...held.keys()]));
}

function expectNobodyLoses(before: Shares, { members }: Model, left: string | undefined): void {
  for (const { memberId = "", held } of members)
    if (memberId !== left)
      expect([...held.keys()]).toEqual(expect.arrayContaining([...(before.get(memberId) ?? [])]));
}

function expectPolicy({ committed, members }: Model, offsets: readonly number[]): void {
  // At most once what is there is committed already.
  if (members.some(({ ack }) => ack === "none")) return;
  expect([...committed].sort()).toEqual([...offsets.entries()]);
}
