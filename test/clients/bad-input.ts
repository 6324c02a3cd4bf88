// What goes wrong before anything goes right: each is an error with a code, and says what to do.

import { expect, test } from "bun:test";
import type { ClientStage } from "./client-stage.ts";
import type { Command } from "./worker-messages.ts";

function consume(topic: string): Command {
  return { do: "consume", name: "c", topics: [topic], as: "run", options: { group: "g" } };
}

export function testBadInput(stageOf: () => ClientStage): void {
  test.each(["", "orders", "ftp://127.0.0.1:4500", "http://127.0.0.1:4500/?topic=orders"])(
    "the URL %j is `bad_url`",
    async (url) => {
      await using worker = stageOf().worker(url);
      const { error } = await worker.expect("end");
      expect(error).toMatchObject({ name: "TidemarkError", code: "bad_url", retriable: false });
      expect(error.message).toContain(JSON.stringify(url));
      expect(error.message).toContain("http://127.0.0.1:4500");
    },
  );

  test("what is no server of ours is `not_a_server`, and is not tried again", async () => {
    await using server = Bun.serve({ port: 0, fetch: () => new Response("welcome", { status: 404 }) });
    await using worker = stageOf().worker(`http://127.0.0.1:${server.port}`);
    worker.tell(consume("orders"));
    const failure = await worker.failure("c");
    expect(failure).toMatchObject({ code: "not_a_server", retriable: false });
    expect(failure?.message).toContain("Check the URL");
    expect((await worker.expect("end")).error.code).toBe("not_a_server");
    const { error } = await worker.ask({ do: "produce", name: "p", topic: "orders", from: 0, to: 1 });
    expect(error).toMatchObject({ code: "not_a_server" });
  });

  test("a server of an older revision is `unsupported_revision`: it says both, and what to do", async () => {
    await using server = Bun.serve({ port: 0, fetch: answerOfRevisionTwo });
    await using worker = stageOf().worker(`http://127.0.0.1:${server.port}`);
    worker.tell(consume("orders"));
    const failure = await worker.failure("c");
    expect(failure).toMatchObject({ code: "unsupported_revision", retriable: false });
    expect(failure?.message).toContain("speaks protocol revision 2");
    expect(failure?.message).toContain("upgrade the server");
  });

  test("where nothing listens, it says so and tries again", async () => {
    await using gone = Bun.serve({ port: 0, fetch: () => new Response() });
    const { port } = gone;
    await gone.stop(true);
    await using worker = stageOf().worker(`http://127.0.0.1:${port}`);
    worker.tell(consume("orders"));
    const trouble = await worker.expect("trouble", { code: "connection_lost" });
    expect(trouble.message).toContain("is the server running");
    await worker.until(
      "another try",
      () => worker.all("status").filter(({ status }) => status === "connecting").length > 1,
    );
    expect(worker.all("done")).toEqual([]);
  });

  test("a topic that does not exist is `unknown_topic`", async () => {
    await using worker = stageOf().worker();
    worker.tell(consume("ordrs"));
    const failure = await worker.failure("c");
    expect(failure).toMatchObject({ name: "TidemarkError", code: "unknown_topic", retriable: false });
    expect(failure?.message).toContain('"ordrs"');
  });

  test("whatever is asked of a client that was closed is `closed`", async () => {
    await using worker = stageOf().worker();
    await worker.do({ do: "closeClient" });
    for (const command of [
      consume("orders"),
      produceOne(),
      { do: "read", name: "r", topics: ["o"], options: {} },
    ] as const) {
      const { error } = await worker.ask(command);
      expect(error).toMatchObject({ name: "TidemarkError", code: "closed", retriable: false });
    }
  });
}

function produceOne(): Command {
  return { do: "produce", name: "p", topic: "orders", from: 0, to: 1 };
}

function answerOfRevisionTwo({ url }: Request): Response {
  const { pathname } = new URL(url);
  if (pathname === "/openapi.json") return Response.json({ info: { "x-protocol-revision": 2 } });
  return new Response(null, { status: pathname === "/v1/stream" ? 426 : 404 });
}
