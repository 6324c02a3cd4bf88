import type { Hono } from "hono";
import { strictObject } from "valibot";
import { readTransaction } from "../core/transaction.ts";
import { transactEnvelopeSchema } from "../protocol/schemas/client.ts";
import { raiseEpoch } from "../store/producers.ts";
import { transact } from "../stream/transact.ts";
import type { AppDeps, AppEnv } from "./app.ts";
import { checkBody, parseBodyObject, parseObject, readBody } from "./body.ts";
import { nameParam, refuseOtherParameters } from "./parameters.ts";

/** How errors call the body. */
const TRANSACTION = "transaction";
const PRODUCER = "body of a new epoch";

export function addTransactionRoutes(app: Hono<AppEnv>, deps: AppDeps): void {
  app.post("/v1/transactions", async (c) => {
    refuseOtherParameters(c);
    const body = await readBody(c.req.raw);
    const envelope = checkBody(transactEnvelopeSchema, parseObject(body, TRANSACTION), TRANSACTION);
    return c.json(await transact(deps, readTransaction(body, envelope)));
  });

  app.post("/v1/producers/:producer", async (c) => {
    const id = nameParam(c, "producer");
    refuseOtherParameters(c);
    const body = await readBody(c.req.raw);
    if (body.trim() !== "") checkBody(strictObject({}), parseBodyObject(body, PRODUCER), PRODUCER);
    return c.json({ id, epoch: await deps.queue.submit(raiseEpoch(id)) });
  });
}
