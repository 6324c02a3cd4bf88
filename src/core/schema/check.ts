// Judges a schema before the library sees it, and gives a copy that the library cannot stumble over: annotations are
// dropped (it takes a "$ref" in a "default" for a reference), and every reference leads by a pointer to a place in this
// one document. So nothing is fetched, no "$id" meets that of another topic, and a loop is found before it runs.

import { JSON_DEPTH_MAX, SCHEMA_BYTES_MAX } from "../../protocol/limits.ts";
import { utf8Length } from "../json-text.ts";
import { Problem } from "../problem.ts";
import { type Draft, isObject, type Keyword, readKeyword, shapeOf } from "./keywords.ts";
import { pointerTo, quote, textOf } from "./text.ts";

export interface CheckedSchema {
  readonly draft: Draft;
  /** Says the same as the schema in fewer words. Pointers into it are pointers into the schema. */
  readonly copy: SchemaCopy;
}

export type SchemaCopy = boolean | CopyObject;
type Json = string | number | boolean | null | Json[] | { [name: string]: Json };
type CopyObject = { [keyword: string]: Json };

/** Throws `bad_request` with what is wrong and where. */
export function checkSchema(schema: unknown): CheckedSchema {
  const root = copyJson(schema);
  const draft = readDraft(root);
  const walk: Walk = { draft, bases: new Map(), anchors: new Map(), nodes: new Map(), references: [] };
  const copy = visit(root, { pointer: "", base: "" }, walk);
  for (const reference of walk.references) resolveReference(reference, walk);
  requireNoLoop(walk);
  return { draft, copy };
}

interface Walk {
  readonly draft: Draft;
  /** Pointers, by the URI that "$id" gave what is there. */
  readonly bases: Map<string, string>;
  /** Pointers, by base and fragment. */
  readonly anchors: Map<string, string>;
  /** Every schema in the schema, by its pointer. */
  readonly nodes: Map<string, Node>;
  readonly references: Reference[];
}

interface Node {
  readonly copy: SchemaCopy;
  /** Pointers of the schemas that judge the same value. */
  readonly inPlace: string[];
}

interface Reference {
  readonly from: Place;
  readonly text: string;
  /** Gets the resolved one. */
  readonly copy: CopyObject;
}

interface Place {
  readonly pointer: string;
  readonly base: string;
}

// ── the whole ────────────────────────────────────────────────────────────────────────────────────────────

function copyJson(schema: unknown): Json {
  if (isDeeperThan(schema, JSON_DEPTH_MAX))
    throw refusal("", `more than ${JSON_DEPTH_MAX} arrays and objects inside one another`, JSON_DEPTH_MAX);
  const text = JSON.stringify(schema) ?? "null";
  const bytes = utf8Length(text);
  if (bytes > SCHEMA_BYTES_MAX) throw refusal("", `${bytes} bytes`, `${SCHEMA_BYTES_MAX} bytes of JSON`);
  // JSON.stringify writes nothing but a lone surrogate so. The library cannot escape one in a URI.
  if (/(?<!\\)(?:\\\\)*\\ud[89a-f]/.test(text)) throw refusal("", "lone surrogate", "Unicode text");
  return JSON.parse(text);
}

function isDeeperThan(value: unknown, depth: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return depth === 0 || Object.values(value).some((inner) => isDeeperThan(inner, depth - 1));
}

function readDraft(root: Json): Draft {
  if (!isObject(root) || root.$schema === undefined) return "2020-12";
  const draft = draftOf(root.$schema);
  if (draft !== undefined) return draft;
  const allowed = `${[...DRAFTS.keys()].map((uri) => `"${uri}"`).join(" or ")}, or none for the first`;
  throw refusal("/$schema", textOf(root.$schema), allowed);
}

const DRAFTS: ReadonlyMap<string, Draft> = new Map([
  ["https://json-schema.org/draft/2020-12/schema", "2020-12"],
  ["http://json-schema.org/draft-07/schema#", "draft-07"],
]);

/** With `http` or `https`, with an empty fragment or without: all are in use. */
function draftOf(uri: unknown): Draft | undefined {
  const bare = (text: string) => text.replace(/^https?:/, "").replace(/#$/, "");
  if (typeof uri !== "string") return undefined;
  for (const [known, draft] of DRAFTS) if (bare(known) === bare(uri)) return draft;
  return undefined;
}

// ── one schema in it ─────────────────────────────────────────────────────────────────────────────────────

function visit(schema: Json, outer: Place, walk: Walk): SchemaCopy {
  const { pointer } = outer;
  if (typeof schema === "boolean") {
    walk.nodes.set(pointer, { copy: schema, inPlace: [] });
    return schema;
  }
  if (!isObject(schema)) throw refusal(pointer, textOf(schema), "a schema: object or boolean");
  const place = { pointer, base: readBase(schema, outer, walk) };
  const inPlace: string[] = [];
  const members = Object.entries(schema).flatMap(([name, value]) => {
    const keyword = requireKeyword(name, value, place, walk);
    return keyword === undefined ? [] : [{ name, value, keyword }];
  });
  const copied = members.map((member) => {
    const { inner, pointers } = visitMember(member, place, walk);
    if (member.keyword.isInPlace) inPlace.push(...pointers);
    return [member.name, inner] as const;
  });
  const copy = withReference(Object.fromEntries(copied), schema, place, walk);
  walk.nodes.set(pointer, { copy, inPlace });
  return copy;
}

/** Undefined: it judges nothing, and the copy goes without it. */
function requireKeyword(name: string, value: Json, place: Place, walk: Walk): Keyword | undefined {
  const at = pointerTo(place.pointer, name);
  const reading = readKeyword(name, walk.draft);
  if (reading === "ignored") return undefined;
  if ("refused" in reading) throw refusal(at, "a keyword that would be ignored", reading.refused);
  const { keyword } = reading;
  const { allowed, fits } = shapeOf(name, keyword, walk.draft);
  if (!fits(value)) throw refusal(at, textOf(value), allowed);
  if (name === "$schema" && draftOf(value) !== walk.draft)
    throw refusal(at, textOf(value), `${walk.draft}, as the whole`);
  if ((name === "const" || name === "enum") && holdsReference(value))
    throw refusal(at, 'a member "$ref", "$id" or "$anchor"', "values without them");
  return keyword.isAnnotation || IDENTIFYING.has(name) ? undefined : keyword;
}

/** Every reference is resolved here, so the copy needs no names. */
const IDENTIFYING: ReadonlySet<string> = new Set(["$id", "$anchor", "$ref"]);

/** The library takes such a member for what it is called, even where it is data. */
function holdsReference(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const names = ["$ref", "$id", "$anchor", "$dynamicAnchor"];
  return names.some((name) => Object.hasOwn(value, name)) || Object.values(value).some(holdsReference);
}

interface Member {
  readonly name: string;
  readonly value: Json;
  readonly keyword: Keyword;
}

interface Visited {
  readonly inner: Json;
  readonly pointers: readonly string[];
}

function visitMember({ name, value, keyword }: Member, place: Place, walk: Walk): Visited {
  const at = pointerTo(place.pointer, name);
  const { holds } = shapeOf(name, keyword, walk.draft);
  const isOne = holds === "schema" || (holds === "either" && !Array.isArray(value));
  if (isOne) return { inner: visit(value, { ...place, pointer: at }, walk), pointers: [at] };
  if (holds === undefined || typeof value !== "object" || value === null)
    return { inner: value, pointers: [] };
  const pointers: string[] = [];
  const entries = Object.entries(value).map(([key, schema]) => {
    // Of draft-07's "dependencies": names, not a schema.
    if (Array.isArray(schema)) return [key, schema] as const;
    const pointer = pointerTo(at, key);
    pointers.push(pointer);
    return [key, visit(schema, { ...place, pointer }, walk)] as const;
  });
  const inner = Array.isArray(value) ? entries.map(([, schema]) => schema) : Object.fromEntries(entries);
  return { inner, pointers };
}

// ── references ───────────────────────────────────────────────────────────────────────────────────────────

function withReference(
  copy: CopyObject,
  { $ref: text, $id }: Readonly<Record<string, unknown>>,
  from: Place,
  walk: Walk,
): CopyObject {
  if (typeof text !== "string") return copy;
  if (walk.draft === "2020-12") {
    walk.references.push({ from, text, copy });
    return copy;
  }
  // Draft-07 ignores whatever stands beside a reference, and generators of schemas put all definitions there.
  const name = Object.keys(copy).find((keyword) => keyword !== "definitions" && keyword !== "$defs");
  if (name !== undefined) throw beside(pointerTo(from.pointer, name));
  if ($id !== undefined && from.pointer !== "") throw beside(pointerTo(from.pointer, "$id"));
  const reference: CopyObject = {};
  walk.references.push({ from, text, copy: reference });
  return { ...copy, allOf: [reference] };
}

function beside(pointer: string): Problem {
  const allowed = '"allOf" with both: draft-07 ignores what stands beside "$ref"';
  return refusal(pointer, 'a keyword beside "$ref"', allowed);
}

function readBase(schema: Readonly<Record<string, unknown>>, outer: Place, walk: Walk): string {
  const { $id, $anchor } = schema;
  const isAnchor = walk.draft === "draft-07" && typeof $id === "string" && $id.startsWith("#");
  const base = typeof $id === "string" && !isAnchor ? resolveUri($id, outer).base : outer.base;
  if (base !== outer.base || outer.pointer === "") setOnce(walk.bases, base, outer.pointer);
  const fragment = isAnchor ? $id.slice(1) : $anchor;
  if (typeof fragment === "string") setOnce(walk.anchors, `${base}#${fragment}`, outer.pointer);
  return base;
}

function setOnce(pointers: Map<string, string>, name: string, pointer: string): void {
  const other = pointers.get(name);
  if (other !== undefined && other !== pointer)
    throw refusal(pointer, `the name ${quote(name)} a second time`, "once in a schema");
  pointers.set(name, pointer);
}

interface Uri {
  readonly base: string;
  readonly fragment: string;
}

/** Stands for the place where the schema is, so that a relative name can be resolved; nothing is ever fetched. */
const HERE = "https://schema.invalid/";

function resolveUri(text: string, { base, pointer }: Place): Uri {
  const uri = URL.parse(text, base === "" ? HERE : base);
  if (uri === null) throw refusal(pointer, quote(text), "a URI");
  const fragment = uri.hash.slice(1);
  uri.hash = "";
  const href = uri.href.replace(/#$/, "");
  return { base: base === "" && href === HERE ? "" : href, fragment };
}

function resolveReference({ from, text, copy }: Reference, walk: Walk): void {
  const pointer = findTarget(text, from, walk);
  if (pointer === undefined) {
    const allowed = `a reference to a schema that is in this one, like "#/$defs/name"; nothing is fetched`;
    throw refusal(pointerTo(from.pointer, "$ref"), quote(text), allowed);
  }
  copy.$ref = nameTarget(pointer, walk);
  walk.nodes.get(from.pointer)?.inPlace.push(pointer);
}

/**
 * A name of its own for the target: the library does not read back every pointer that it has put into a URI. A boolean
 * has no place for a name.
 */
function nameTarget(pointer: string, { draft, nodes }: Walk): string {
  const copy = nodes.get(pointer)?.copy;
  if (pointer === "" || typeof copy !== "object") return `#${encodeURI(pointer)}`;
  const keyword = draft === "2020-12" ? "$anchor" : "$id";
  const prefix = draft === "2020-12" ? "" : "#";
  // Another place cannot have this one: it is the pointer, in hexadecimal.
  copy[keyword] ??= `${prefix}at${hexOf(pointer)}`;
  return `#at${hexOf(pointer)}`;
}

function hexOf(text: string): string {
  return Array.from(text, (character) => `-${character.codePointAt(0)?.toString(16)}`).join("");
}

function findTarget(text: string, from: Place, walk: Walk): string | undefined {
  const { base, fragment } = resolveUri(text, from);
  const root = walk.bases.get(base);
  if (fragment !== "" && !fragment.startsWith("/")) return walk.anchors.get(`${base}#${fragment}`);
  const pointer = root === undefined ? undefined : decodeFragment(fragment);
  if (pointer === undefined) return undefined;
  return walk.nodes.has(root + pointer) ? root + pointer : undefined;
}

function decodeFragment(fragment: string): string | undefined {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return undefined;
  }
}

/** Schemas that judge one value by each other would do so for ever. */
function requireNoLoop({ nodes }: Walk): void {
  const done = new Set<string>();
  for (const start of nodes.keys()) {
    const open = new Set<string>();
    const stack = [start];
    // Depth first without recursion: a chain of references may be longer than the stack is.
    for (let at = stack.at(-1); at !== undefined; at = stack.at(-1)) {
      const isLeft = done.has(at) || open.has(at);
      if (isLeft) {
        stack.pop();
        open.delete(at);
        done.add(at);
        continue;
      }
      open.add(at);
      for (const next of nodes.get(at)?.inPlace ?? []) {
        if (open.has(next))
          throw refusal(next, "a schema that comes back to itself for the same value", LOOP);
        if (!done.has(next)) stack.push(next);
      }
    }
  }
}

const LOOP = "references back from inside a property or an item only";

// ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────

function refusal(pointer: string, found: string, allowed: string | number): Problem {
  const where = pointer === "" ? "" : ` at ${quote(pointer)}`;
  const message = `Cannot set the schema${where}: found ${found}, allowed ${allowed}`;
  return new Problem("bad_request", message, { path: pointer, found, allowed });
}
