// The members of one group that hang on this process: what each was told last, and what a new picture has to tell it.

import type { GroupMember, GroupPicture, JoinRequest } from "../core/group-picture.ts";
import {
  type MetadataById,
  newsOf,
  type OwnershipChange,
  type ToldOwnerships,
  tellOwnership,
  untoldMetadata,
} from "../core/ownership.ts";
import type { JoinResult } from "../core/session/events.ts";

export type EndReason = "replaced" | "expired";

/** Called in the order in which things happen: onJoined first. Kept for as long as the membership: it should be small. */
export interface MemberListener {
  onJoined(joined: JoinResult): void;
  onChange(change: OwnershipChange): void;
  /** The membership is lost to others or to its lease; nothing follows. */
  onEnd(reason: EndReason): void;
}

interface Holder {
  readonly memberId: string;
  readonly membership: number;
  readonly instanceId: string | undefined;
  readonly topics: readonly string[];
  readonly listener: MemberListener;
  readonly told: ToldOwnerships;
  isJoined: boolean;
}

type MembershipName = Pick<GroupMember, "memberId" | "membership">;

export class LocalMembers {
  readonly #holdersById = new Map<string, Holder>();

  get count(): number {
    return this.#holdersById.size;
  }

  list(): readonly MembershipName[] {
    return [...this.#holdersById.values()].map(({ memberId, membership }) => ({ memberId, membership }));
  }

  haveTopic(topic: string): boolean {
    return [...this.#holdersById.values()].some(({ topics }) => topics.includes(topic));
  }

  /** The join is written. It is told what it has with the next picture. */
  hold(
    { memberId, membership }: MembershipName,
    { request, listener }: { readonly request: JoinRequest; readonly listener: MemberListener },
  ): void {
    const before = this.#holdersById.get(memberId);
    if (before) this.#end(before, "replaced");
    const { instanceId, topics } = request;
    const told: ToldOwnerships = new Map();
    this.#holdersById.set(memberId, {
      memberId,
      membership,
      instanceId,
      topics,
      listener,
      told,
      isJoined: false,
    });
  }

  /** Nothing is told to it any more. False where it is not here, or another membership by now. */
  letGo({ memberId, membership }: MembershipName): boolean {
    return this.has({ memberId, membership }) && this.#holdersById.delete(memberId);
  }

  has({ memberId, membership }: MembershipName): boolean {
    return this.#holdersById.get(memberId)?.membership === membership;
  }

  /** `readMetadata`: of these partitions, which are told with it. */
  async tell(
    picture: GroupPicture,
    readMetadata: (partitionIds: readonly number[]) => Promise<MetadataById>,
  ): Promise<void> {
    const news = newsOf(picture);
    const untold = [...this.#holdersById.values()].flatMap((holder) =>
      untoldMetadata(holder.told, holder, news),
    );
    const metadata = await readMetadata(untold);
    const members = new Map(picture.members.map((member) => [member.memberId, member]));
    for (const holder of [...this.#holdersById.values()]) {
      const member = members.get(holder.memberId);
      if (member?.membership === holder.membership) tellHolder(holder, member, { ...news, metadata });
      else this.#end(holder, isReplaced(holder, picture) ? "replaced" : "expired");
    }
  }

  #end(holder: Holder, reason: EndReason): void {
    this.#holdersById.delete(holder.memberId);
    const { memberId, membership, listener } = holder;
    if (!holder.isJoined) listener.onJoined({ memberId, membership, owned: NOTHING_OWNED });
    listener.onEnd(reason);
  }
}

const NOTHING_OWNED: OwnershipChange = { gained: [], revoked: [], lost: [] };

function tellHolder(holder: Holder, member: GroupMember, news: Parameters<typeof tellOwnership>[2]): void {
  const { memberId, membership, listener } = holder;
  const change = tellOwnership(holder.told, member, news);
  const isNews = change.gained.length + change.revoked.length + change.lost.length > 0;
  if (holder.isJoined) {
    if (isNews) listener.onChange(change);
    return;
  }
  holder.isJoined = true;
  listener.onJoined({ memberId, membership, owned: change });
}

/** Who has taken a membership over has its memberId or its instanceId. */
function isReplaced({ memberId, instanceId }: Holder, { members }: GroupPicture): boolean {
  return members.some(
    (member) =>
      member.memberId === memberId || (instanceId !== undefined && member.instanceId === instanceId),
  );
}
