// Has sqld write to disk before it acknowledges, and makes sure that it does. What else is set there stays as it is.

import process from "node:process";

const SYNCHRONOUS_FULL = "2";
const DEADLINE_MS = 10_000;

const { SQLD_URL = "http://sqld:8080", SQLD_ADMIN_URL = "http://sqld:8081" } = process.env;
const CONFIG_URL = `${SQLD_ADMIN_URL}/v1/namespaces/default/config`;

const found: unknown = await (await ask(CONFIG_URL)).json();
// All fields: sqld takes one that is left out for its default.
await ask(CONFIG_URL, { ...Object(found), durability_mode: "strong" });
const synchronous = await readSynchronous();
if (synchronous !== SYNCHRONOUS_FULL) {
  throw new Error(
    `sqld was set to "strong", and PRAGMA synchronous is ${synchronous}, not ${SYNCHRONOUS_FULL}`,
  );
}
process.stdout.write("sqld is durable: durability_mode=strong synchronous=2\n");

async function ask(url: string, body?: unknown): Promise<Response> {
  const response = await fetch(url, {
    ...(body !== undefined && {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    }),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  return response;
}

/** As a server sees it: by the same address, of a connection that is opened now. */
async function readSynchronous(): Promise<string | undefined> {
  const requests = [{ type: "execute", stmt: { sql: "PRAGMA synchronous" } }, { type: "close" }];
  const answer = await (await ask(`${SQLD_URL}/v2/pipeline`, { requests })).text();
  return /"type":"integer","value":"(\d+)"/.exec(answer)?.[1];
}
