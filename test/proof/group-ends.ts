// Groups that end, with all that was committed: they were in one snapshot and are not in the next. Whether they may have,
// keep-checks.ts judges.

import type { EventOf, SeenGroup } from "./history.ts";

export interface GroupEnd {
  /** As it was last seen. */
  readonly group: SeenGroup;
  readonly committed: EventOf<"snapshot">["committed"];
}

export class GroupEnds {
  #last: EventOf<"snapshot"> | undefined;

  /** Those that have ended since the last. */
  see(snapshot: EventOf<"snapshot">): readonly GroupEnd[] {
    const before = this.#last;
    this.#last = snapshot;
    const { groups } = snapshot;
    if (!before?.groups || !groups) return [];
    const ended = before.groups.filter(
      (was) => !groups.some((is) => is.group === was.group && is.createdAt === was.createdAt),
    );
    return ended.map((group) => ({
      group,
      committed: before.committed.filter((row) => row.group === group.group),
    }));
  }
}
