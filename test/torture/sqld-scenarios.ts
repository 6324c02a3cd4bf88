// What is done to servers that share one sqld, and to that.

import { CuttingProxy } from "../support/cutting-proxy.ts";
import type { TestServer } from "../support/server.ts";
import { HAS_SQLD, SQLD_SKIPPED, type Sqld, startSqld } from "../support/sqld.ts";
import type { Bout, Verdict } from "./bout.ts";
import { killNow, onBrokenOff } from "./last-rites.ts";
import type { Scenario } from "./scenario.ts";
import { sightOfRemote } from "./sight.ts";
import { TcpProxy } from "./tcp-proxy.ts";

/** Servers try again in steps of half a second. */
const OUTAGE_OVER_MS = 15_000;
export const skipped = () => (HAS_SQLD ? undefined : SQLD_SKIPPED);

/** Runs the body on servers that share an sqld, under load. */
async function onSqld(
  bout: Bout,
  servers: number,
  body: (sqld: Sqld, servers: TestServer[]) => Promise<void>,
): Promise<Verdict> {
  await using sqld = await startSqld();
  using _ = mourned(sqld);
  const started: TestServer[] = [];
  for (let n = 0; n < servers; n += 1) started.push(await bout.stage.start(sqld.url));
  await bout.begin(sightOfRemote(sqld.url));
  await body(sqld, started);
  const verdict = await bout.end();
  await Promise.all(bout.stage.servers.map((server) => bout.stage.end(server, "SIGKILL")));
  return verdict;
}

/** Until `using` lets it go it ends with the runner. */
export function mourned(sqld: Sqld): Disposable {
  return { [Symbol.dispose]: onBrokenOff(() => killNow(sqld.pid)) };
}

const sqldKill: Scenario = {
  name: "sqld-kill",
  faults: "kill -9 of sqld while two servers had work unanswered",
  figure: 100,
  skipped,
  run: (bout) =>
    onSqld(bout, 2, async (sqld, servers) => {
      while (bout.goesOn) {
        await bout.work(0, 400);
        await bout.rush();
        const isAtWork = bout.load.tally.unanswered > 0;
        await sqld.signal("SIGKILL");
        // Now and then a server is started while its database is not there, or comes and goes.
        const replaced = bout.dice.isLucky(0.1) ? replace(bout, servers).catch(bout.problem) : undefined;
        await bout.work(0, 300);
        await sqld.start();
        if (replaced && bout.dice.isLucky(0.5)) {
          await bout.work(0, 100);
          await sqld.signal("SIGKILL");
          await sqld.start();
        }
        await replaced;
        bout.endRush();
        await bout.expectProgress("after sqld was there again", OUTAGE_OVER_MS);
        bout.noteFault(isAtWork);
      }
    }),
};

async function replace(bout: Bout, servers: TestServer[]): Promise<void> {
  const at = bout.dice.between(0, servers.length - 1);
  const server = servers[at];
  if (!server) return;
  await bout.stage.end(server, "SIGKILL");
  servers[at] = await bout.stage.start(server.databasePath);
}

const sqldFreeze: Scenario = {
  name: "sqld-freeze",
  faults: "times that sqld stood still, for up to 9 s",
  figure: 12,
  skipped,
  run: (bout) =>
    onSqld(bout, 2, async (sqld) => {
      while (bout.goesOn) {
        await bout.work(300, 1_000);
        await bout.rush();
        await sqld.signal("SIGSTOP");
        await (bout.dice.isLucky(0.3) ? bout.work(6_000, 9_000) : bout.work(200, 3_000));
        await sqld.signal("SIGCONT");
        bout.endRush();
        await bout.expectProgress("after sqld went on", OUTAGE_OVER_MS);
        bout.noteFault();
      }
    }),
};

const serverKill: Scenario = {
  name: "server-kill",
  faults: "kill -9 of one of three servers on one sqld",
  figure: 40,
  skipped,
  run: (bout) =>
    onSqld(bout, 3, async (_, servers) => {
      while (bout.goesOn) {
        await bout.work(100, 1_500);
        await bout.rush();
        const cutBefore = bout.load.tally.cut;
        await replace(bout, servers);
        bout.endRush();
        bout.noteFault(bout.load.tally.cut > cutBefore);
      }
    }),
};

const serverFreeze: Scenario = {
  name: "server-freeze",
  faults: "times that one of three servers on one sqld stood still, every third for longer than its lease",
  figure: 9,
  skipped,
  run: (bout) =>
    onSqld(bout, 3, async (_, servers) => {
      for (let turn = 0; bout.goesOn; turn += 1) {
        await bout.work(300, 1_500);
        await bout.rush();
        const { pid } = bout.dice.pick(servers);
        process.kill(pid, "SIGSTOP");
        bout.endRush();
        await (turn % 3 === 0 ? bout.work(11_000, 14_000) : bout.work(300, 4_000));
        process.kill(pid, "SIGCONT");
        await bout.expectProgress("after a server went on", OUTAGE_OVER_MS);
        bout.noteFault();
      }
    }),
};

/** Of a server's flush. */
export function isWrite(request: string): boolean {
  return request.includes("INSERT INTO flushes");
}

const proxy: Scenario = {
  name: "proxy",
  faults: "answers lost or requests held between server and sqld, and connections cut in front of a server",
  figure: 300,
  skipped,
  async run(bout) {
    await using sqld = await startSqld();
    using _ = mourned(sqld);
    using between = new CuttingProxy(sqld.port);
    const servers = [await bout.stage.start(between.url), await bout.stage.start(sqld.url)];
    const fronts = servers.map((server) => {
      const front = new TcpProxy(Number(new URL(server.url).port));
      bout.stage.welcome(server, front);
      return front;
    });
    await bout.begin(sightOfRemote(sqld.url));
    // Writes above all; a read is asked again.
    between.isLost = (request) => bout.dice.isLucky(isWrite(request) ? 0.06 : 0.01);
    between.isHeld = (request) => isWrite(request) && bout.dice.isLucky(0.02);
    let [held, cut] = [0, 0];
    while (bout.goesOn) {
      await bout.work(200, 1_500);
      await bout.rush();
      await bout.dice.pick(fronts).cut(bout.dice.between(0, 50));
      bout.endRush();
      held += between.held;
      await between.letThrough(); // what was given up arrives late
      cut = fronts.reduce((sum, { cuts }) => sum + cuts, 0);
      bout.faults = between.lost + held + cut;
    }
    between.isLost = () => false;
    between.isHeld = () => false;
    await between.letThrough();
    const verdict = await bout.end();
    await Promise.all(bout.stage.servers.map((server) => bout.stage.end(server, "SIGKILL")));
    for (const front of fronts) front[Symbol.dispose]();
    const notes = [`${between.lost} answers of sqld lost, ${held} requests held, ${cut} connections cut`];
    return { ...verdict, notes: [...notes, ...verdict.notes] };
  },
};

const mixed: Scenario = {
  name: "mixed",
  faults: "two at once of: a server or sqld killed or frozen, answers lost, requests held",
  figure: 40,
  skipped,
  async run(bout) {
    await using sqld = await startSqld();
    using _ = mourned(sqld);
    using between = new CuttingProxy(sqld.port);
    const servers: TestServer[] = [];
    for (const url of [between.url, between.url, sqld.url]) servers.push(await bout.stage.start(url));
    await bout.begin(sightOfRemote(sqld.url));
    while (bout.goesOn) {
      await bout.work(200, 1_500);
      await bout.rush();
      await Promise.all(pickTwo(bout, { sqld, between, servers }).map((harm) => harm()));
      bout.endRush();
      await bout.expectProgress("after two faults at once", OUTAGE_OVER_MS);
      bout.noteFault();
    }
    const verdict = await bout.end();
    await Promise.all(bout.stage.servers.map((server) => bout.stage.end(server, "SIGKILL")));
    return verdict;
  },
};

interface Victims {
  readonly sqld: Sqld;
  readonly between: CuttingProxy;
  readonly servers: TestServer[];
}

/** Of different kinds: one process is not harmed twice at once. */
function pickTwo(bout: Bout, { sqld, between, servers }: Victims): readonly (() => Promise<void>)[] {
  const harmServer = bout.dice.pick([
    () => replace(bout, servers),
    () => freeze(bout, bout.dice.pick(servers).pid),
  ]);
  const harmSqld = bout.dice.pick([
    async () => {
      await sqld.signal("SIGKILL");
      await bout.work(0, 1_000);
      await sqld.start();
    },
    () => freeze(bout, sqld.pid),
  ]);
  const harmAnswers = bout.dice.pick([() => loseAnswers(bout, between), () => holdRequests(bout, between)]);
  const harms = [harmServer, harmSqld, harmAnswers].flatMap((harm) => harm ?? []);
  harms.splice(bout.dice.between(0, 2), 1);
  return harms;
}

async function freeze(bout: Bout, pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  await (bout.dice.isLucky(0.15) ? bout.work(10_500, 12_000) : bout.work(100, 3_000));
  process.kill(pid, "SIGCONT");
}

async function loseAnswers(bout: Bout, between: CuttingProxy): Promise<void> {
  between.isLost = () => bout.dice.isLucky(0.3);
  await bout.work(200, 2_000);
  between.isLost = () => false;
}

/** What is held goes through late: after its sender has sent it again, or is not there any more. */
async function holdRequests(bout: Bout, between: CuttingProxy): Promise<void> {
  between.isHeld = (request) => isWrite(request) && bout.dice.isLucky(0.5);
  await bout.work(200, 2_000);
  between.isHeld = () => false;
  await bout.work(0, 7_000);
  await Promise.race([between.letThrough(), Bun.sleep(2_000)]); // sqld may not be there to answer
}

export const SQLD_SCENARIOS: readonly Scenario[] = [
  sqldKill,
  sqldFreeze,
  serverKill,
  serverFreeze,
  proxy,
  mixed,
];
