// What failed turns of a group have left undone: leaves that could not be written, and joins that may have been written
// although their clients were told that they failed. The next turn takes them along; when one comes to an end they are
// done.

import type { GroupChange } from "../core/group-change.ts";
import type { GroupPicture } from "../core/group-picture.ts";
import type { LocalMembers } from "./local-members.ts";

type Leave = Extract<GroupChange, { kind: "leave" }>;

export class GroupLeftovers {
  readonly #leaves: Leave[] = [];
  /** Members that such a join may have become: nobody here holds them then. */
  readonly #doubtfulIds = new Set<string>();

  /** `mayBeWritten`: of joins; a leave that was written is harmless to repeat. */
  add(changes: readonly GroupChange[], { mayBeWritten }: { readonly mayBeWritten: boolean }): void {
    for (const change of changes) {
      if (change.kind === "leave") this.#leaves.push(change);
      if (change.kind !== "join" || !mayBeWritten) continue;
      const { newMemberId, memberId } = change.request;
      this.#doubtfulIds.add(newMemberId);
      if (memberId !== undefined) this.#doubtfulIds.add(memberId);
    }
  }

  /** `processId`: of this server; what hangs on others is theirs. */
  changesFor(
    { group, members }: GroupPicture,
    { held, processId }: { readonly held: LocalMembers; readonly processId: string | null },
  ): readonly Leave[] {
    const abandoned = members.filter(
      (member) =>
        this.#doubtfulIds.has(member.memberId) && member.processId === processId && !held.has(member),
    );
    return [
      ...this.#leaves,
      ...abandoned.map(
        ({ memberId, membership }): Leave => ({ kind: "leave", member: { group, memberId, membership } }),
      ),
    ];
  }
}
