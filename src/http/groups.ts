import type { Hono } from "hono";
import type { InferOutput } from "valibot";
import type { ResetRequest } from "../core/reset-plan.ts";
import { groupOffsetsSchema, resetRequestSchema } from "../protocol/schemas/client.ts";
import { commitFromOutside, deleteGroup, forgetTopic, unknownGroup } from "../store/group-changes.ts";
import { describeGroup, listGroups } from "../store/group-queries.ts";
import type { AppDeps, AppEnv } from "./app.ts";
import { checkBody, parseBodyObject, readBody } from "./body.ts";
import { nameParam, refuseOtherParameters } from "./parameters.ts";

/** How errors call the body. */
const OFFSETS = "offsets of the group";
const RESET = "reset of the group";

export function addGroupRoutes(app: Hono<AppEnv>, { db, queue, memberships }: AppDeps): void {
  app.get("/v1/groups", async (c) => {
    refuseOtherParameters(c);
    return c.json({ groups: await listGroups(db) });
  });

  app.get("/v1/groups/:group", async (c) => {
    const group = nameParam(c, "group");
    refuseOtherParameters(c);
    const description = await describeGroup(db, group);
    if (!description) throw unknownGroup(group);
    return c.json(description);
  });

  app.delete("/v1/groups/:group", async (c) => {
    const group = nameParam(c, "group");
    refuseOtherParameters(c);
    await queue.submit(deleteGroup({ op: queue.nextOp(), group }));
    return c.body(null, 204);
  });

  app.delete("/v1/groups/:group/topics/:topic", async (c) => {
    const group = nameParam(c, "group");
    const topic = nameParam(c, "topic");
    refuseOtherParameters(c);
    await queue.submit(forgetTopic({ op: queue.nextOp(), group, topic }));
    return c.body(null, 204);
  });

  app.post("/v1/groups/:group/offsets", async (c) => {
    const group = nameParam(c, "group");
    refuseOtherParameters(c);
    const input = parseBodyObject(await readBody(c.req.raw), OFFSETS);
    const { offsets } = checkBody(groupOffsetsSchema, input, OFFSETS);
    return c.json({
      offsets: await queue.submit(commitFromOutside({ op: queue.nextOp(), group, offsets })),
    });
  });

  app.post("/v1/groups/:group/reset", async (c) => {
    const group = nameParam(c, "group");
    refuseOtherParameters(c);
    const input = parseBodyObject(await readBody(c.req.raw), RESET);
    const request = resetRequestOf(group, checkBody(resetRequestSchema, input, RESET));
    const { steps, isApplied } = await memberships.reset(request);
    const plan = steps.map(({ topic, partition, from, to }) => ({ topic, partition, from, to }));
    return c.json({ plan, applied: isApplied });
  });
}

function resetRequestOf(
  group: string,
  { topics = [], to, plan = [], dryRun, reason }: InferOutput<typeof resetRequestSchema>,
): ResetRequest {
  const named = new Set([...topics, ...plan].map(({ topic }) => topic));
  const target =
    to === undefined ? ({ kind: "plan", steps: plan } as const) : ({ kind: "place", topics, to } as const);
  return { group, topics: [...named], target, isDryRun: dryRun ?? false, reason };
}
