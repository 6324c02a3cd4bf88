// The descriptions of the protocol as a client gets them, and what their JSON Schemas say of an input.

import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";

/** Any JSON object, to be looked into by a test. */
// biome-ignore lint/suspicious/noExplicitAny: the validators have judged the whole of it
export type Json = any;

export class Described {
  readonly document: Json;
  readonly #ajv = new Ajv2020({ strict: false, allErrors: true });
  readonly #validators = new Map<string, ValidateFunction>();

  constructor(document: Json) {
    this.document = document;
    this.#ajv.addSchema(document, "document");
  }

  /** What the schema at `pointer` (`/components/…`) finds wrong; empty where nothing is. */
  mistakesOf(pointer: string, input: unknown): readonly string[] {
    const validate = this.#validatorOf(pointer);
    if (validate(input)) return [];
    return (validate.errors ?? []).map((error) => `${error.instancePath} ${error.message}`);
  }

  #validatorOf(pointer: string): ValidateFunction {
    const known = this.#validators.get(pointer);
    if (known) return known;
    const validate = this.#ajv.compile({ $ref: `document#${pointer}` });
    this.#validators.set(pointer, validate);
    return validate;
  }
}

/** A JSON pointer of these steps. */
export function pointerTo(...steps: readonly (string | number)[]): string {
  return steps
    .map((step) => `/${encodeURIComponent(String(step).replaceAll("~", "~0").replaceAll("/", "~1"))}`)
    .join("");
}

/** Every `$ref` of a document. */
export function referencesOf(node: unknown): readonly string[] {
  if (typeof node !== "object" || node === null) return [];
  const own = "$ref" in node && typeof node.$ref === "string" ? [node.$ref] : [];
  return [...own, ...Object.values(node).flatMap(referencesOf)];
}

/** What a `$ref` inside the document refers to, or undefined. */
export function resolveReference(document: Json, reference: string): unknown {
  const steps = reference
    .replace(/^#\//, "")
    .split("/")
    .map((step) => decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~"));
  return steps.reduce((node: Json, step) => node?.[step], document);
}
