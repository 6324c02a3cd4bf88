// What may be asked of a group by its members; an operator's reset is in reset-plan.ts.

import type { JoinRequest } from "./group-picture.ts";
import type { MembershipRef } from "./session/state.ts";

/** Partitions of one ownership each: another generation means that it is over already. */
export interface OwnedPartition {
  readonly partitionId: number;
  readonly generation: number;
}

export type GroupChange =
  | { readonly kind: "join"; readonly request: JoinRequest }
  | { readonly kind: "leave"; readonly member: MembershipRef }
  /** Revoked partitions that their owner lets go. */
  | {
      readonly kind: "release";
      readonly member: MembershipRef;
      readonly partitions: readonly OwnedPartition[];
    }
  /** Partitions that their owner has not acknowledged in time. */
  | {
      readonly kind: "stall";
      readonly member: MembershipRef;
      readonly partitions: readonly OwnedPartition[];
    };
