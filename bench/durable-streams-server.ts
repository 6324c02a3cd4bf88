// The reference server of Durable Streams as a process of its own: durable-streams-server.ts <folder>

import { DurableStreamTestServer } from "@durable-streams/server";

const [dataDir] = process.argv.slice(2);
// Without a folder it would keep everything in memory.
if (dataDir === undefined) throw new Error("durable-streams-server.ts <folder>");
// Compression would only cost time on one machine; a client has no say in it, fetch() accepts gzip by itself.
const server = new DurableStreamTestServer({ port: 0, dataDir, compression: false });
console.log(`ready ${await server.start()}`);
