// The HTTP side described as OpenAPI 3.1, from the routes that are served and the schemas of the wire.
//
// hono-openapi finds the descriptions at routes, so there are the same routes once more, with nothing but them. The
// schemas go around it, by json-schema.ts: its own way from valibot drops what it cannot say.

import { Hono } from "hono";
import { describeRoute, generateSpecs } from "hono-openapi";
import type * as v from "valibot";
import type { AppEnv } from "./app.ts";
import { INFO } from "./description-info.ts";
import { describeSchema, type UnknownMembers } from "./json-schema.ts";
import { ANSWER_SCHEMAS, REQUEST_SCHEMAS, ROUTE_DESCRIPTIONS } from "./route-descriptions.ts";

type Documentation = NonNullable<NonNullable<Parameters<typeof generateSpecs>[1]>["documentation"]>;
type Components = NonNullable<Documentation["components"]>;

/** JSON. */
export async function openapiText(app: Hono<AppEnv>): Promise<string> {
  const document = await generateSpecs(describedRoutes(app), {
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

function describedRoutes(app: Hono<AppEnv>): Hono {
  const described = new Hono();
  for (const { method, path } of app.routes) {
    const description = ROUTE_DESCRIPTIONS.get(`${method} ${path}`);
    if (description) described.on(method, path, describeRoute(description), (c) => c.body(null));
  }
  return described;
}

function schemas(named: Readonly<Record<string, v.GenericSchema>>, unknownMembers: UnknownMembers) {
  return Object.fromEntries(
    Object.entries(named).map(([name, schema]) => [name, describeSchema(schema, unknownMembers)]),
  );
}
