// Who of the servers on one sqld does the upkeep, by what they ask of it: one at a time, and another one soon after that
// one was killed.

import { UPKEEP_LEASE_MS } from "../../src/store/upkeep-lease.ts";
import { CuttingProxy } from "../support/cutting-proxy.ts";
import type { TestServer } from "../support/server.ts";
import { startSqld } from "../support/sqld.ts";
import type { Bout } from "./bout.ts";
import type { Scenario } from "./scenario.ts";
import { sightOfRemote } from "./sight.ts";
import { isWrite, mourned, skipped } from "./sqld-scenarios.ts";

const SERVERS = 3;
/** Who is to take over has appends to look after, every 250 ms; and this machine has other things to do. */
const A_BIT_MS = 3_000;

export const keeperKill: Scenario = {
  name: "keeper-kill",
  faults: "kill -9 of that one of three servers on one sqld that was in a step of upkeep",
  figure: 12,
  skipped,
  async run(bout) {
    await using sqld = await startSqld();
    using _ = mourned(sqld);
    using keepers = new Keepers(bout, sqld.port);
    for (let n = 0; n < SERVERS; n += 1) await keepers.start();
    // Who takes over would have the topics of ten seconds to purge before anything else.
    await bout.begin(sightOfRemote(sqld.url), { hasChurn: false });
    while (bout.goesOn) {
      await bout.work(200, 1_500);
      await keepers.killKeeper();
      await bout.lookAtUpkeep();
      await keepers.start();
      bout.noteFault();
    }
    const verdict = await bout.end();
    await Promise.all(bout.stage.servers.map((server) => bout.stage.end(server, "SIGKILL")));
    const wrong = [...findTwoKeepers(keepers.deeds), ...verdict.wrong];
    return { ...verdict, wrong, notes: [...keepers.notes, ...verdict.notes] };
  },
};

export interface Deed {
  readonly atMs: number;
  readonly server: number;
  /** It asks for the lease, which may be another's; it does a step; it lets the lease go. */
  readonly what: "take" | "step" | "end";
}

/** Steps of one while another has the lease, which is so from its first step until it lets go or the lease is over. */
export function findTwoKeepers(deeds: readonly Deed[]): readonly string[] {
  const askedAtMs = new Map<number, number>();
  let keeper: number | undefined;
  return deeds.flatMap(({ atMs, server, what }) => {
    if (what === "take") askedAtMs.set(server, atMs);
    if (what === "end" && keeper === server) keeper = undefined;
    if (what !== "step") return [];
    const other = keeper === server ? undefined : keeper;
    keeper = server;
    const leftMs = other === undefined ? 0 : (askedAtMs.get(other) ?? 0) + UPKEEP_LEASE_MS - atMs;
    if (leftMs <= 0) return [];
    return [`server ${server} does upkeep while server ${other} has the lease for ${leftMs} ms more`];
  });
}

/** Each server has a proxy of its own in front of sqld. */
class Keepers implements Disposable {
  readonly deeds: Deed[] = [];
  readonly #bout: Bout;
  readonly #sqldPort: number;
  readonly #proxies: CuttingProxy[] = [];
  readonly #servers = new Map<number, TestServer>();
  readonly #takeoversMs: number[] = [];
  /** Told of the next step. */
  #onStep: (server: number) => void = () => {};

  constructor(bout: Bout, sqldPort: number) {
    this.#bout = bout;
    this.#sqldPort = sqldPort;
  }

  async start(): Promise<void> {
    const proxy = new CuttingProxy(this.#sqldPort);
    const number = this.#proxies.push(proxy);
    proxy.isHeld = (request) => {
      proxy.requests.length = 0; // all that was asked is more than is to be kept
      this.#note(number, request);
      return false;
    };
    this.#servers.set(number, await this.#bout.stage.start(proxy.url));
  }

  /** In the middle of a step. Resolves when another one has done one. */
  async killKeeper(): Promise<void> {
    const killed = await this.#nextStep({ act: (server) => this.#kill(server) });
    const atMs = Date.now();
    const inTime = this.#nextStep({ except: killed });
    const isLate = await Promise.race([inTime, Bun.sleep(UPKEEP_LEASE_MS + A_BIT_MS).then(() => "late")]);
    if (isLate === "late") {
      this.#bout.load.problems.push(`nobody has taken over from server ${killed} in ${Date.now() - atMs} ms`);
      await inTime;
    }
    this.#takeoversMs.push(Date.now() - atMs);
  }

  get notes(): readonly string[] {
    const steps = Map.groupBy(
      this.deeds.filter(({ what }) => what === "step"),
      ({ server }) => server,
    );
    const counts = [...steps].map(([server, { length }]) => `${length} by server ${server}`);
    return [
      `steps of upkeep: ${counts.join(", ")}`,
      `another one took over after ${this.#takeoversMs.join(", ")} ms`,
    ];
  }

  [Symbol.dispose](): void {
    for (const proxy of this.#proxies) proxy[Symbol.dispose]();
  }

  /** Of whom; `act` is called before anything else happens. */
  #nextStep({ except, act }: { except?: number; act?: (server: number) => void } = {}): Promise<number> {
    return new Promise((resolve) => {
      this.#onStep = (server) => {
        if (server === except) return;
        this.#onStep = () => {};
        act?.(server);
        resolve(server);
      };
    });
  }

  /** At once: what it has just asked for still goes through. */
  #kill(number: number): void {
    const server = this.#servers.get(number);
    this.#servers.delete(number);
    if (server) this.#bout.stage.end(server, "SIGKILL").catch(this.#bout.problem);
  }

  #note(server: number, request: string): void {
    for (const what of deedsIn(request)) {
      this.deeds.push({ atMs: Date.now(), server, what });
      if (what === "step") this.#onStep(server);
    }
  }
}

/** A flush may have several; trims that somebody waits for are none of them. */
function deedsIn(request: string): readonly Deed["what"][] {
  if (!isWrite(request)) return [];
  const isRetention = request.includes("INSERT INTO trim_steps") && request.includes("retention_records");
  const isStep =
    isRetention || request.includes("INSERT INTO superseded") || request.includes("INSERT INTO append_times");
  return [
    ...(request.includes("INSERT INTO upkeep_lease") ? (["take"] as const) : []),
    ...(isStep ? (["step"] as const) : []),
    ...(request.includes("DELETE FROM upkeep_lease") ? (["end"] as const) : []),
  ];
}
