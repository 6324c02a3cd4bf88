// The plain types of bodies and answers over HTTP are those of their schemas: no member more, none less. The compiler
// finds out, by `bun run check`.

import { expect, test } from "bun:test";
import type * as v from "valibot";
import type * as http from "../../src/protocol/http.ts";
import type * as client from "../../src/protocol/schemas/client.ts";
import type * as server from "../../src/protocol/schemas/server.ts";

/** Read-only all the way down, so that only members and their types are compared. */
type Plain<T> = T extends object ? { readonly [K in keyof T]: Plain<T[K]> } : T;

/** Two conditional types are the same only where what they ask for is. */
type Same<A, B> =
  (<T>() => T extends Plain<A> ? 1 : 2) extends <T>() => T extends Plain<B> ? 1 : 2 ? true : false;

type Answer<Name extends keyof typeof server> = (typeof server)[Name] extends v.GenericSchema
  ? v.InferOutput<(typeof server)[Name]>
  : never;

const answers: {
  readonly [K in keyof Answers]: Same<Answers[K][0], Answers[K][1]>;
} = {
  topics: true,
  topic: true,
  bounds: true,
  fetched: true,
  groups: true,
  group: true,
  committed: true,
  plan: true,
  producer: true,
  readiness: true,
};

interface Answers {
  topics: [http.TopicList, Answer<"topicListSchema">];
  topic: [http.TopicDescription, Answer<"topicDescriptionSchema">];
  bounds: [http.PartitionBounds, Answer<"deleteRecordsAnswerSchema">];
  fetched: [http.Fetched, Answer<"fetchAnswerSchema">];
  groups: [http.GroupList, Answer<"groupListSchema">];
  group: [http.GroupDescription, Answer<"groupDescriptionSchema">];
  committed: [http.CommittedOffsets, Answer<"committedOffsetsAnswerSchema">];
  plan: [http.ResetPlan, Answer<"resetAnswerSchema">];
  producer: [http.ProducerEpoch, Answer<"producerSchema">];
  readiness: [http.Readiness, Answer<"readinessSchema">];
}

type Settings = v.InferOutput<typeof client.topicSettingsSchema>;
type Reset = v.InferOutput<typeof client.resetRequestSchema>;

/** Every member that may be there is. */
type Given<T> = { [K in keyof T]-?: Exclude<T[K], undefined> };

/** A schema of values and the choice of a reset are more than their types say to the server. */
const requests: {
  readonly settings: Same<Omit<http.TopicSettings, "schema">, Omit<Settings, "schema">>;
  readonly settingNames: Same<keyof http.TopicSettings, keyof Settings>;
  readonly offsets: Same<http.GroupOffsets, v.InferOutput<typeof client.groupOffsetsSchema>>;
  readonly resetNames: Same<keyof http.ResetToPlace | keyof http.ResetByPlan, keyof Reset>;
  readonly toPlace: Same<Given<http.ResetToPlace>, Given<Omit<Reset, "plan">>>;
  readonly byPlan: Same<Given<http.ResetByPlan>, Given<Omit<Reset, "topics" | "to">>>;
} = { settings: true, settingNames: true, offsets: true, resetNames: true, toPlace: true, byPlan: true };

test("the comparison of types sees a member more, one less, and another type", () => {
  const found: [
    Same<{ a: number; b?: string | undefined }, { a: number }>,
    Same<{ a: number }, { a: number; b: string }>,
    Same<{ a: { b: number }[] }, { readonly a: readonly { readonly b: number | null }[] }>,
    Same<{ a: { b: number }[] }, { readonly a: readonly { readonly b: number }[] }>,
  ] = [false, false, false, true];
  expect(found).toHaveLength(4);
  expect([...Object.values(answers), ...Object.values(requests)]).not.toContain(false);
});
