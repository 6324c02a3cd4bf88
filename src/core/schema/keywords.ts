// The keywords of JSON Schema as a table: which draft knows them, what their value must look like, where it holds
// further schemas. The library judges a schema by its meta-schema too; this table says in words what is wrong, and it
// refuses what JSON Schema would let pass and then ignore.

export type Draft = "2020-12" | "draft-07";

export interface Keyword {
  /** Absent: both drafts have it. */
  readonly draft?: Draft;
  readonly shape: Shape;
  /** Its schemas judge the very value that the schema around them judges, not a part of it. */
  readonly isInPlace?: boolean;
  /** It judges nothing. */
  readonly isAnnotation?: boolean;
}

export interface Shape {
  readonly allowed: string;
  fits(value: unknown): boolean;
  readonly holds?: "schema" | "list" | "members" | "either";
}

/** What a draft makes of a member of a schema. */
export type Reading = { readonly keyword: Keyword } | { readonly refused: string } | "ignored";

export function readKeyword(name: string, draft: Draft): Reading {
  const keyword = KEYWORDS.get(name);
  if (keyword !== undefined && (keyword.draft ?? draft) === draft) return { keyword };
  const instead = INSTEAD.get(name);
  if (instead !== undefined) return { refused: instead };
  if (keyword !== undefined) return { refused: `a keyword of ${draft}; this one is of ${keyword.draft}` };
  const meant = findMisspelt(name, draft);
  return meant === undefined ? "ignored" : { refused: `"${meant}", if that was meant` };
}

// ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const isString = (value: unknown) => typeof value === "string";
const isNumber = (value: unknown) => typeof value === "number" && Number.isFinite(value);
const isSchema = (value: unknown) => isObject(value) || typeof value === "boolean";
const isList = (value: unknown) => Array.isArray(value) && value.length > 0 && value.every(isSchema);
const isNames = (value: unknown) =>
  Array.isArray(value) && value.every(isString) && new Set(value).size === value.length;
const isTypeName = (value: unknown) => typeof value === "string" && TYPE_NAMES.includes(value);
const isTypes = (value: unknown) =>
  isTypeName(value) ||
  (isNames(value) && Array.isArray(value) && value.length > 0 && value.every(isTypeName));
const isObjectOf = (fits: (value: unknown) => boolean) => (value: unknown) =>
  isObject(value) && Object.values(value).every(fits);

const TYPE_NAMES = ["null", "boolean", "object", "array", "number", "string", "integer"];

const ANYTHING: Shape = { allowed: "any value", fits: () => true };
const ARRAY: Shape = { allowed: "array", fits: Array.isArray };
const STRING: Shape = { allowed: "string", fits: isString };
const BOOLEAN: Shape = { allowed: "boolean", fits: (value) => typeof value === "boolean" };
const NUMBER: Shape = { allowed: "number", fits: isNumber };
const DIVISOR: Shape = { allowed: "number above 0", fits: (value) => isNumber(value) && Number(value) > 0 };
const COUNT: Shape = {
  allowed: "integer from 0",
  fits: (value) => Number.isInteger(value) && Number(value) >= 0,
};
const TYPES: Shape = {
  allowed: `one of ${TYPE_NAMES.join(", ")}, or an array of different ones`,
  fits: isTypes,
};
const NAMES: Shape = { allowed: "array of different strings", fits: isNames };
const NAMES_BY_NAME: Shape = { allowed: "object of arrays of different strings", fits: isObjectOf(isNames) };
const ANCHOR: Shape = {
  allowed: "a letter or _, then letters, digits and - . _",
  fits: (value) => typeof value === "string" && /^[A-Za-z_][A-Za-z0-9._-]*$/.test(value),
};
const PATTERN: Shape = { allowed: 'a regular expression of ECMAScript with the flag "u"', fits: isPattern };
const SCHEMA: Shape = { allowed: "a schema: object or boolean", fits: isSchema, holds: "schema" };
const LIST: Shape = { allowed: "array of one schema or more", fits: isList, holds: "list" };
const MEMBERS: Shape = { allowed: "object of schemas", fits: isObjectOf(isSchema), holds: "members" };
const MEMBERS_BY_PATTERN: Shape = {
  allowed: `object of schemas, each under ${PATTERN.allowed}`,
  fits: (value) => isObject(value) && MEMBERS.fits(value) && Object.keys(value).every(isPattern),
  holds: "members",
};
const SCHEMA_OR_LIST: Shape = {
  allowed: "a schema, or an array of one or more",
  fits: (value) => isSchema(value) || isList(value),
  holds: "either",
};
const DEPENDENCIES: Shape = {
  allowed: "object of schemas and arrays of different strings",
  fits: isObjectOf((value) => isSchema(value) || isNames(value)),
  holds: "members",
};

function isPattern(value: unknown): boolean {
  if (typeof value !== "string") return false;
  try {
    return new RegExp(value, "u") !== null;
  } catch {
    return false;
  }
}

// ── the table ────────────────────────────────────────────────────────────────────────────────────────────

const NEW = "2020-12";
const OLD = "draft-07";

const KEYWORDS: ReadonlyMap<string, Keyword> = new Map<string, Keyword>([
  ["$schema", { shape: STRING, isAnnotation: true }],
  ["$id", { shape: STRING }],
  ["$ref", { shape: STRING }],
  ["$anchor", { shape: ANCHOR, draft: NEW }],
  ["$defs", { shape: MEMBERS }],
  ["definitions", { shape: MEMBERS }],

  ["type", { shape: TYPES }],
  ["enum", { shape: ARRAY }],
  ["const", { shape: ANYTHING }],
  ["format", { shape: STRING }],
  ["pattern", { shape: PATTERN }],
  ["minLength", { shape: COUNT }],
  ["maxLength", { shape: COUNT }],
  ["minimum", { shape: NUMBER }],
  ["maximum", { shape: NUMBER }],
  ["exclusiveMinimum", { shape: NUMBER }],
  ["exclusiveMaximum", { shape: NUMBER }],
  ["multipleOf", { shape: DIVISOR }],

  ["required", { shape: NAMES }],
  ["minProperties", { shape: COUNT }],
  ["maxProperties", { shape: COUNT }],
  ["properties", { shape: MEMBERS }],
  ["patternProperties", { shape: MEMBERS_BY_PATTERN }],
  ["additionalProperties", { shape: SCHEMA }],
  ["propertyNames", { shape: SCHEMA }],
  ["dependencies", { shape: DEPENDENCIES, draft: OLD, isInPlace: true }],
  ["dependentRequired", { shape: NAMES_BY_NAME, draft: NEW }],
  ["dependentSchemas", { shape: MEMBERS, draft: NEW, isInPlace: true }],
  ["unevaluatedProperties", { shape: SCHEMA, draft: NEW }],

  ["minItems", { shape: COUNT }],
  ["maxItems", { shape: COUNT }],
  ["uniqueItems", { shape: BOOLEAN }],
  ["contains", { shape: SCHEMA }],
  ["minContains", { shape: COUNT, draft: NEW }],
  ["maxContains", { shape: COUNT, draft: NEW }],
  ["items", { shape: SCHEMA }],
  ["prefixItems", { shape: LIST, draft: NEW }],
  ["unevaluatedItems", { shape: SCHEMA, draft: NEW }],
  ["additionalItems", { shape: SCHEMA, draft: OLD }],

  ["allOf", { shape: LIST, isInPlace: true }],
  ["anyOf", { shape: LIST, isInPlace: true }],
  ["oneOf", { shape: LIST, isInPlace: true }],
  ["not", { shape: SCHEMA, isInPlace: true }],
  ["if", { shape: SCHEMA, isInPlace: true }],
  ["then", { shape: SCHEMA, isInPlace: true }],
  ["else", { shape: SCHEMA, isInPlace: true }],

  ["$comment", { shape: STRING, isAnnotation: true }],
  ["title", { shape: STRING, isAnnotation: true }],
  ["description", { shape: STRING, isAnnotation: true }],
  ["default", { shape: ANYTHING, isAnnotation: true }],
  ["examples", { shape: ARRAY, isAnnotation: true }],
  ["example", { shape: ANYTHING, isAnnotation: true }], // OpenAPI's, and no misspelling
  ["deprecated", { shape: BOOLEAN, isAnnotation: true }],
  ["readOnly", { shape: BOOLEAN, isAnnotation: true }],
  ["writeOnly", { shape: BOOLEAN, isAnnotation: true }],
  ["contentEncoding", { shape: STRING, isAnnotation: true }],
  ["contentMediaType", { shape: STRING, isAnnotation: true }],
  ["contentSchema", { shape: ANYTHING, isAnnotation: true }],
]);

/** `items` is the one keyword that both drafts have with different shapes. */
export function shapeOf(name: string, keyword: Keyword, draft: Draft): Shape {
  return name === "items" && draft === OLD ? SCHEMA_OR_LIST : keyword.shape;
}

/** Each of them would be ignored, and is written by people who expect that it is not. */
const INSTEAD: ReadonlyMap<string, string> = new Map([
  ["id", '"$id"'],
  ["nullable", '"null" among the names in "type"'],
  ["optional", 'a name that is absent from "required"'],
  ["extends", '"allOf"'],
  ["disallow", '"not"'],
  ["divisibleBy", '"multipleOf"'],
  ["additionalItems", '"prefixItems" for the first items and "items" for the others'],
  ["dependencies", '"dependentRequired" and "dependentSchemas"'],
  ["$dynamicRef", '"$ref": a topic has one schema, there is nothing that could be extended'],
  ["$dynamicAnchor", '"$anchor": a topic has one schema, there is nothing that could be extended'],
  ["$recursiveRef", '"$ref"'],
  ["$recursiveAnchor", '"$anchor"'],
  ["$vocabulary", "no vocabulary: they belong into meta-schemas"],
]);

// ── misspelt ─────────────────────────────────────────────────────────────────────────────────────────────

/** Shorter ones are too near to words that may be annotations, like "note". */
const MISSPELT_LENGTH_MIN = 4;

function findMisspelt(name: string, draft: Draft): string | undefined {
  const bare = bareOf(name);
  for (const [known, keyword] of KEYWORDS) {
    if ((keyword.draft ?? draft) !== draft || known.length < MISSPELT_LENGTH_MIN) continue;
    if (isOneEditApart(bare, bareOf(known))) return known;
  }
  return undefined;
}

function bareOf(name: string): string {
  return name.toLowerCase().replaceAll(/[_$ -]/g, "");
}

/** Equal, or so with one letter more, less, another or exchanged with its neighbour. */
function isOneEditApart(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1) return false;
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  const restOf = (text: string, skip: number) => text.slice(start + skip);
  const isSwapped = a[start] === b[start + 1] && a[start + 1] === b[start] && restOf(a, 2) === restOf(b, 2);
  return (
    isSwapped ||
    restOf(a, 1) === restOf(b, 1) ||
    restOf(a, 1) === restOf(b, 0) ||
    restOf(a, 0) === restOf(b, 1)
  );
}
