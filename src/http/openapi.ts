// The HTTP side described as OpenAPI 3.1, from the routes that are served and the schemas of the wire.
//
// hono-openapi finds the descriptions at the routes. The schemas go around it, by json-schema.ts: its own way from
// valibot drops what it cannot say.

import type { Hono } from "hono";
import { generateSpecs } from "hono-openapi";
import type * as v from "valibot";
import type { AppEnv } from "./app.ts";
import { INFO } from "./description-info.ts";
import { describeSchema, type UnknownMembers } from "./json-schema.ts";
import { ANSWER_SCHEMAS, REQUEST_SCHEMAS } from "./route-descriptions.ts";

type Documentation = NonNullable<NonNullable<Parameters<typeof generateSpecs>[1]>["documentation"]>;
type Components = NonNullable<Documentation["components"]>;

/** JSON. */
export async function openapiText(app: Hono<AppEnv>): Promise<string> {
  const document = await generateSpecs(app, {
    excludeStaticFile: false, // what ends in .json is no file here
    documentation: {
      info: { ...INFO, description: "A durable, partitioned log. /asyncapi.json describes the stream." },
      tags: ["topics", "records", "groups", "server"].map((name) => ({ name })),
      components: {
        schemas: { ...schemas(REQUEST_SCHEMAS, "refused"), ...schemas(ANSWER_SCHEMAS, "ignored") },
      } as Components, // 2020-12, which is what OpenAPI 3.1 has
    },
  });
  return JSON.stringify(document);
}

function schemas(named: Readonly<Record<string, v.GenericSchema>>, unknownMembers: UnknownMembers) {
  return Object.fromEntries(
    Object.entries(named).map(([name, schema]) => [name, describeSchema(schema, unknownMembers)]),
  );
}
