// The two descriptions of the protocol, each made once, when somebody asks. Neither needs the database.

import type { Context, Hono } from "hono";
import type { AppEnv } from "./app.ts";
import { asyncapiText } from "./asyncapi.ts";
import { openapiText } from "./openapi.ts";
import { refuseOtherParameters } from "./parameters.ts";
import { DESCRIBED } from "./route-descriptions.ts";

export function addDescriptionRoutes(app: Hono<AppEnv>): void {
  let openapi: Promise<string> | undefined;
  let asyncapi: string | undefined;

  app.get("/openapi.json", DESCRIBED.openapi, async (c) => {
    refuseOtherParameters(c);
    openapi ??= openapiText(app);
    return jsonText(c, await openapi);
  });

  app.get("/asyncapi.json", DESCRIBED.asyncapi, (c) => {
    refuseOtherParameters(c);
    asyncapi ??= asyncapiText();
    return jsonText(c, asyncapi);
  });
}

function jsonText(c: Context<AppEnv>, text: string): Response {
  return c.body(text, 200, { "content-type": "application/json" });
}
