// A Cloudflare Worker with a Tidemark server somewhere else: what is POSTed to /orders is produced, and a Durable Object
// reads the orders and keeps their total, which GET /total tells.
//
//   npx wrangler dev                                       (TIDEMARK_URL is in wrangler.jsonc)
//   curl http://127.0.0.1:8787/orders -d '{"customer":"ada","total":12.5}'
//   curl http://127.0.0.1:8787/total
//
// Nothing in a Worker lives on, and a socket belongs to the request that opened it. So:
// - each POST opens a connection and closes it: a round trip or two more than over one that is kept;
// - nobody waits for orders. An alarm rings after a POST and once a minute, reads what is there within its time, and
//   closes. The total is as old as the last alarm, and an order that others produce is counted up to a minute late;
// - the object reads without a group. How far it is it keeps itself, with the total, in one write: each order counts once,
//   also where an alarm is cut off and rings again.

import { DurableObject } from "cloudflare:workers";
import { type Client, type Cursor, connect, TidemarkError } from "@tidemark/client";

interface Env {
  readonly TIDEMARK_URL: string;
  readonly TIDEMARK_TOKEN?: string;
  readonly TOTAL: DurableObjectNamespace<OrderTotal>;
}

interface Order {
  readonly customer: string;
  readonly total: number;
}

interface State {
  readonly orders: number;
  readonly total: number;
  readonly cursor?: Cursor;
}

const TOPIC = "orders";
/** Whoever POSTs waits so long for a server that is away; then the answer is an error. */
const PRODUCE_MS_MAX = 10_000;
const EVERY_MS = 60_000;
/** Most of one alarm, which may take 15 minutes. */
const READ_MS_MAX = 30_000;

export default {
  async fetch(request, env): Promise<Response> {
    switch (`${request.method} ${new URL(request.url).pathname}`) {
      case "POST /orders":
        return postOrder((await request.json()) as Order, env);
      case "GET /total":
        return Response.json(await env.TOTAL.getByName("all").read());
      default:
        return new Response("POST /orders or GET /total", { status: 404 });
    }
  },
} satisfies ExportedHandler<Env>;

async function postOrder(order: Order, env: Env): Promise<Response> {
  if (typeof order?.total !== "number") return new Response("an order has a total", { status: 400 });
  await using tidemark = connectTo(env);
  try {
    const { runs } = await tidemark.produce(TOPIC, { key: order.customer, value: order });
    await env.TOTAL.getByName("all").wake();
    return Response.json({ runs }, { status: 201 });
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return Response.json({ code: error.code, detail: error.message }, { status: 503 });
  }
}

/** One for all: its alarm is never twice at work at the same time. */
export class OrderTotal extends DurableObject<Env> {
  async read(): Promise<{ readonly orders: number; readonly total: number }> {
    const { orders, total } = await this.#state();
    return { orders, total };
  }

  /** Rings at once. One that is at work rings again when it is through. */
  async wake(): Promise<void> {
    await this.ctx.storage.setAlarm(Date.now());
  }

  override async alarm(): Promise<void> {
    await this.ctx.storage.setAlarm(Date.now() + EVERY_MS); // first: whatever becomes of this one
    await using tidemark = connectTo(this.env);
    await this.#readOn(tidemark);
  }

  async #readOn(tidemark: Client): Promise<void> {
    const { topicId, partitions } = await tidemark.admin.topic(TOPIC, {
      signal: AbortSignal.timeout(READ_MS_MAX),
    });
    const isBehind = (cursor?: Cursor) =>
      partitions.some(({ partition, logStartOffset, logEndOffset }) => {
        const position = cursor?.positions.find(
          (each) => each.topicId === topicId && each.partition === partition,
        );
        return (position?.offset ?? logStartOffset) < logEndOffset;
      });
    let { orders, total, cursor } = await this.#state();
    if (!isBehind(cursor)) return;
    const reader = tidemark.read(TOPIC, cursor ? { from: cursor } : {});
    const stop = setTimeout(() => void reader.close(), READ_MS_MAX);
    for await (const batch of reader) {
      for (const { value } of batch.records) total += totalOf(value);
      orders += batch.records.length;
      await batch.ack(); // commits nothing: from here on the cursor is behind this batch
      cursor = reader.cursor();
      await this.ctx.storage.put<State>("state", { orders, total, cursor });
      if (!isBehind(cursor)) break;
    }
    clearTimeout(stop);
    if (isBehind(cursor)) await this.wake(); // its time was over
  }

  async #state(): Promise<State> {
    return (await this.ctx.storage.get<State>("state")) ?? { orders: 0, total: 0 };
  }
}

/** Others produce orders as well, and of another shape. */
function totalOf(value: unknown): number {
  const { total } = Object(value);
  return typeof total === "number" ? total : 0;
}

function connectTo({ TIDEMARK_URL: url, TIDEMARK_TOKEN: token }: Env): Client {
  const producer = { deliveryTimeoutMs: PRODUCE_MS_MAX };
  return connect({ url, producer, ...(token !== undefined && { token }) });
}
