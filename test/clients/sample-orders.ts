// What the examples of the docs find on the server: the topic "orders", four partitions, twelve orders of three customers.

import { HttpClient } from "../support/http-client.ts";
import type { AnyServer } from "../support/server.ts";

export async function produceSampleOrders(server: AnyServer): Promise<void> {
  const client = new HttpClient(server);
  await client.createTopic("orders", 4);
  const orders = Array.from({ length: 12 }, (_, id) => ({
    key: `customer-${id % 3}`,
    value: { id, total: 10 + id },
  }));
  await client.produce("orders", orders);
}
