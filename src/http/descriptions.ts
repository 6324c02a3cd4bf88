// The two descriptions of the protocol, each made once, when somebody asks, by what is loaded then. Neither needs the
// database.

import type { Context, Hono } from "hono";
import type { AppEnv } from "./app.ts";
import { refuseOtherParameters } from "./parameters.ts";

export function addDescriptionRoutes(app: Hono<AppEnv>): void {
  let openapi: Promise<string> | undefined;
  let asyncapi: Promise<string> | undefined;

  app.get("/openapi.json", async (c) => {
    refuseOtherParameters(c);
    openapi ??= import("./openapi.ts").then(({ openapiText }) => openapiText(app));
    return jsonText(c, await openapi);
  });

  app.get("/asyncapi.json", async (c) => {
    refuseOtherParameters(c);
    asyncapi ??= import("./asyncapi.ts").then(({ asyncapiText }) => asyncapiText());
    return jsonText(c, await asyncapi);
  });
}

function jsonText(c: Context<AppEnv>, text: string): Response {
  return c.body(text, 200, { "content-type": "application/json" });
}
