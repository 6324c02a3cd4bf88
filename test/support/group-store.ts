// Groups as a server changes them, without the server: read, planned and written, for the tests of what is stored.

import type { GroupChange } from "../../src/core/group-change.ts";
import type { GroupPicture, JoinRequest, Ownership } from "../../src/core/group-picture.ts";
import { type GroupPlan, planGroup, policyResets, timesNeededBy } from "../../src/core/group-plan.ts";
import type { MembershipRef } from "../../src/core/session/state.ts";
import type { Db } from "../../src/store/db.ts";
import { readGroups, readMetadata } from "../../src/store/group-pictures.ts";
import {
  type ChangedGroup,
  type OffsetReset,
  type PlannedChange,
  writeGroups,
} from "../../src/store/groups.ts";
import type { Operation } from "../../src/store/operations.ts";
import { findOffsetsAt } from "../../src/store/places.ts";
import type { WriteQueue } from "../../src/store/write-queue.ts";

export const TIMEOUT_MS = 45_000;

export type JoinOptions = Partial<JoinRequest>;

export interface Joined extends MembershipRef {
  readonly partitions: readonly OwnedNow[];
}

/** A partition as its owner has it, revoked or not. */
export interface OwnedNow extends Ownership {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
  readonly partitionId: number;
  readonly committedOffset: number | null;
  readonly metadata: string | null;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
}

export type Outcome = Pick<ChangedGroup, "version" | "isLate">;

export interface Planned {
  readonly picture: GroupPicture;
  readonly plan: GroupPlan;
  readonly resets: readonly OffsetReset[];
  readonly planned: PlannedChange;
  /** Of this plan alone. */
  readonly operation: Operation<Outcome>;
}

export interface PlanOptions {
  readonly group?: string;
  readonly mayExpire?: boolean;
  readonly topics?: readonly string[];
}

export class GroupStore {
  readonly #db: Db;
  readonly #queue: WriteQueue;
  readonly #processId: string | null;

  /** `processId`: of a server on a shared database. */
  constructor(deps: { db: Db; queue: WriteQueue; processId?: string }) {
    this.#db = deps.db;
    this.#queue = deps.queue;
    this.#processId = deps.processId ?? null;
  }

  /** What is to be done from what the group is now, to be written now or later. */
  async plan(changes: readonly GroupChange[], options: PlanOptions = {}): Promise<Planned> {
    const { group = "billing", mayExpire = true, topics = changes.flatMap(topicsOf) } = options;
    const picture = await readGroup(this.#db, group, topics);
    const plan = planGroup(picture, changes, { mayExpire });
    const times = await findOffsetsAt(this.#db, timesNeededBy(plan));
    const resets = policyResets(plan, times).map(
      ({ memberId, ...reset }): OffsetReset => ({ ...reset, actor: `member ${memberId}`, isExact: false }),
    );
    const planned = { op: this.#queue.nextOp(), picture, plan, resets, topics };
    return { picture, plan, resets, planned, operation: this.write(planned) };
  }

  write(planned: PlannedChange): Operation<Outcome> {
    const { settle, afterLostAnswer, ...operation } = writeGroups([planned], this.#processId);
    return {
      ...operation,
      ...(afterLostAnswer === "repeat" && { afterLostAnswer }),
      settle: (...of) => {
        const [{ version, isLate } = { version: undefined, isLate: false }] = settle(...of);
        return { version, isLate };
      },
    };
  }

  /** A join of a member of a new name: `m1`, `m2`, … */
  async planJoin(options: JoinOptions = {}): Promise<Planned & { readonly memberId: string }> {
    const request = await this.#requestOf(options);
    const planned = await this.plan([{ kind: "join", request }], { group: request.group });
    return { ...planned, memberId: planned.plan.joins[0]?.memberId ?? request.newMemberId };
  }

  /** Throws where the plan is refused, or void. */
  async join(options: JoinOptions = {}): Promise<Joined> {
    const { plan, operation, memberId } = await this.planJoin(options);
    for (const refusal of plan.refusals.values()) throw refusal;
    const { version } = await this.#queue.submit(operation);
    if (version === undefined) throw new Error("the group has changed while it was joined");
    return this.owned(memberId, options.group);
  }

  /** Plans and writes; the version is undefined where there was nothing to do, or the plan was void. */
  async change(changes: readonly GroupChange[], options: PlanOptions = {}): Promise<Outcome> {
    return this.#queue.submit((await this.plan(changes, options)).operation);
  }

  leave(member: MembershipRef): Promise<Outcome> {
    return this.change([leaving(member)], { group: member.group });
  }

  /** What is due: ends of leases and of deadlines, and owners for what has none. */
  carryOut(group = "billing"): Promise<Outcome> {
    return this.change([], { group });
  }

  async owned(memberId: string, group = "billing"): Promise<Joined> {
    const { members, partitions } = await readGroup(this.#db, group, []);
    const member = members.find((one) => one.memberId === memberId);
    if (!member) throw new Error(`${memberId} is no member of ${group}`);
    const { membership } = member;
    const ids = partitions.map(({ partitionId }) => partitionId);
    const metadata = await readMetadata(this.#db, group, ids);
    return {
      group,
      memberId,
      membership,
      partitions: partitions.flatMap(
        ({ owner, partitionsSeen: _, topicIdSeen: __, hasMetadata: ___, ...partition }) =>
          owner?.memberId === memberId
            ? [{ ...partition, ...owner, metadata: metadata.get(partition.partitionId) ?? null }]
            : [],
      ),
    };
  }

  async #requestOf(options: JoinOptions): Promise<JoinRequest> {
    const { group = "billing" } = options;
    const { members } = await readGroup(this.#db, group, []);
    const names = new Set(members.map(({ memberId }) => memberId));
    let number = 1;
    while (names.has(`m${number}`)) number += 1;
    return {
      group,
      topics: ["orders"],
      memberId: undefined,
      instanceId: undefined,
      newMemberId: `m${number}`,
      policies: { missing: "earliest", outOfRange: "earliest" },
      sessionTimeoutMs: TIMEOUT_MS,
      ...options,
    };
  }
}

/** Where nobody else is asked for at the same time. */
export async function readGroup(db: Db, group: string, topics: readonly string[]): Promise<GroupPicture> {
  const [picture] = await readGroups(db, [{ group, topics }]);
  if (!picture) throw new Error("no picture of the group that was asked for");
  return picture;
}

export function leaving({ group, memberId, membership }: MembershipRef): GroupChange {
  return { kind: "leave", member: { group, memberId, membership } };
}

function topicsOf(change: GroupChange): readonly string[] {
  return change.kind === "join" ? change.request.topics : [];
}
