// Browser-safe. What a schema says of an input.
//
// It says two different things, and judge() keeps them apart: a member missing or of the wrong type (a schema issue),
// and a value of the right type that is not allowed (a check, a validation issue). On the socket the first closes it
// as `bad_frame`, the second is answered with `bad_request`.

import * as v from "valibot";

export type Verdict<T> =
  | { readonly kind: "valid"; readonly output: T }
  /** A member is missing or of the wrong type. */
  | { readonly kind: "misfit"; readonly why: string }
  /** A member that nobody knows, by its path. */
  | { readonly kind: "unknownMember"; readonly member: string }
  | { readonly kind: "notAllowed"; readonly why: string };

/** Of what a client sent, an error repeats no more than this. */
const FOUND_CHARACTERS_MAX = 60;

export function judge<const Schema extends v.GenericSchema>(
  schema: Schema,
  input: unknown,
): Verdict<v.InferOutput<Schema>> {
  const result = v.safeParse(schema, input);
  if (result.success) return { kind: "valid", output: result.output };
  const { issues } = result;
  const misfit = issues.find((issue) => issue.kind === "schema" && unknownMemberOf(issue) === undefined);
  if (misfit) return { kind: "misfit", why: describe(misfit) };
  const member = issues.map(unknownMemberOf).find((found) => found !== undefined);
  if (member !== undefined) return { kind: "unknownMember", member: excerpt(member) };
  return { kind: "notAllowed", why: describe(issues[0]) };
}

export function excerpt(text: string): string {
  return text.length <= FOUND_CHARACTERS_MAX ? text : `${text.slice(0, FOUND_CHARACTERS_MAX)}…`;
}

/** A strict object says of a member that it does not know: expected never. */
function unknownMemberOf(issue: v.BaseIssue<unknown>): string | undefined {
  return issue.type === "strict_object" && issue.expected === "never" ? pathOf(issue) : undefined;
}

function describe(issue: v.BaseIssue<unknown>): string {
  const path = pathOf(issue);
  const member = path === "" ? "it" : `"${excerpt(path)}"`; // a check of the whole has no path
  if (issue.kind === "validation" || issue.type === "custom") return `${member} ${issue.message}`;
  if (issue.received === "undefined") return `${member} must be there`;
  return `${member} must be ${inWords(issue.expected ?? "")}, found ${excerpt(inWords(issue.received))}`;
}

/** What valibot calls a type, as it is said in a sentence; a value that it repeats stays as it is. */
function inWords(type: string): string {
  return TYPES_IN_WORDS[type] ?? type;
}

const TYPES_IN_WORDS: Readonly<Record<string, string>> = {
  Array: "an array",
  Object: "an object",
  string: "a string",
  number: "a number",
};

function pathOf(issue: v.BaseIssue<unknown>): string {
  return v.getDotPath(issue) ?? "";
}
