// Puts a server together from what a runtime brings: a database, time, chance and a log. No globals here.

import type { Chance, Log, Scheduler } from "../core/ports.ts";
import { createApp } from "../http/app.ts";
import type { OriginRules } from "../http/origin.ts";
import type { Db } from "../store/db.ts";
import { TimeIndexCadence } from "../store/time-index.ts";
import { Topics } from "../store/topics.ts";
import { Upkeep, type UpkeepOutcome } from "../store/upkeep.ts";
import { WriteQueue } from "../store/write-queue.ts";
import { ChangePoll } from "../stream/change-poll.ts";
import { Connection } from "../stream/connection.ts";
import { Fetches } from "../stream/fetch.ts";
import { Memberships } from "../stream/memberships.ts";
import { RecordSchemas } from "../stream/record-schemas.ts";
import { SharedReads } from "../stream/shared-reads.ts";
import type { SocketHandlers, SocketPort } from "../stream/socket.ts";
import { WakeUps } from "../stream/wake-ups.ts";

const RECONNECT_AFTER_MS = 500;
/** For clients to acknowledge what they hold, when the server stops. */
const DRAIN_MS = 2_000;
/** A socket whose client does not answer the close is given up. */
const CLOSE_DEADLINE_MS = 1_000;

export interface ServerDeps {
  readonly db: Db;
  readonly scheduler: Scheduler;
  readonly chance: Chance;
  readonly log: Log;
  readonly origins: OriginRules;
  readonly createsTopicsOnFirstUse: boolean;
  /** How long a group without members keeps its offsets, in ms; null: for ever. */
  readonly offsetRetentionMs?: number | null;
  /** False on a platform without timers: then somebody calls keepUp() from time to time. */
  readonly keepsUpByItself?: boolean;
  /** A timer for what may be hours away, where the scheduler's would not live so long. */
  readonly longTimer?: Pick<Scheduler, "after">;
}

export type Server = ReturnType<typeof createServer>;

export function createServer(deps: ServerDeps) {
  const { db, scheduler, chance, log, origins } = deps;
  const connections = new Set<Connection>();
  const reads = new SharedReads({ db, scheduler });
  const queue = new WriteQueue({ db, scheduler, chance, log, isReading: () => reads.isBusy });
  const topics = new Topics({
    db,
    queue,
    scheduler,
    log,
    createsOnFirstUse: deps.createsTopicsOnFirstUse,
    isWanted: (topic) => [...connections].some((connection) => connection.wantsTopic(topic)),
  });
  const wakeUps = new WakeUps({ db, scheduler, log });
  const fetches = new Fetches({ db, reads, wakeUps, scheduler });
  const timeIndexCadence = new TimeIndexCadence();
  const processId = db.isShared ? chance.newId() : null;
  const memberships = new Memberships({ db, topics, queue, scheduler, chance, log, processId });
  const schemas = new RecordSchemas();
  const upkeep = new Upkeep({
    db,
    queue,
    scheduler,
    log,
    processId,
    offsetRetentionMs: deps.offsetRetentionMs ?? null,
    hasTimers: deps.keepsUpByItself ?? true,
    longTimer: deps.longTimer,
  });
  const transactDeps = { schemas, db, topics, queue, wakeUps, timeIndexCadence, chance, upkeep };
  const changePoll = new ChangePoll({
    db,
    scheduler,
    log,
    onGroup: (group, version) => memberships.onGroupChange(group, version),
    onTopics: async (catalogVersion) => {
      await topics.refresh(catalogVersion);
      upkeep.noteAppend(); // one may have retention that had none: its server may die, and then nobody else would look
    },
    onOutage: () => memberships.noteOutage(),
  });
  let onLastClosed: (() => void) | undefined;
  let isDraining = false;
  let isClosed = false;

  topics.onChange((topicChange) => {
    for (const connection of connections) connection.onTopicChange(topicChange);
    const { topic, change, partitionIds } = topicChange;
    memberships.onTopicChange(topic);
    if (change !== "deleted") return;
    wakeUps.notifyGone(partitionIds);
    timeIndexCadence.forget(partitionIds);
    schemas.forget(topic);
    upkeep.wake();
  });

  function connect(socket: SocketPort, query: URLSearchParams): SocketHandlers {
    const connection = new Connection(socket, query, {
      durability: db.durability,
      ...transactDeps,
      reads,
      memberships,
      scheduler,
      log,
    });
    connections.add(connection);
    if (connections.size === 1) {
      changePoll.start();
      memberships.resume();
    }
    return {
      onOpen: () => {
        connection.onOpen();
        if (isDraining) connection.drain(RECONNECT_AFTER_MS); // where the runtime still takes connections
      },
      onMessage: (text) => connection.onMessage(text),
      onPong: () => connection.onPong(),
      onDrain: () => connection.onDrain(),
      onClose: () => {
        connections.delete(connection);
        connection.onClose();
        if (connections.size > 0) return;
        changePoll.stop();
        memberships.pause();
        onLastClosed?.();
      },
    };
  }

  function drainConnections(): Promise<void> {
    isDraining = true;
    return new Promise((resolve) => {
      if (connections.size === 0) return resolve();
      onLastClosed = resolve;
      scheduler.after(DRAIN_MS, () => {
        for (const connection of connections) connection.endDrain();
        scheduler.after(CLOSE_DEADLINE_MS, resolve);
      });
      for (const connection of connections) connection.drain(RECONNECT_AFTER_MS);
    });
  }

  return {
    app: createApp({
      ...transactDeps,
      fetches,
      memberships,
      log,
      origins,
      isClosed: () => isClosed,
      connect,
    }),

    /** Before the first request. Where it rejects it may be called again. */
    async start(): Promise<void> {
      if (db.isShared) await changePoll.begin();
      await memberships.begin();
      upkeep.wake(); // what the last run has not come to
    },

    /**
     * Retention, compaction and the rest of what is otherwise done by itself in the background: for a scheduler to call,
     * on a platform without timers. Begins nothing after `withinMs` ms, and says when to call again. Rejects with a
     * DbError or a Problem: what was done until then is done.
     */
    keepUp(withinMs: number): Promise<UpkeepOutcome> {
      return upkeep.run(withinMs);
    },

    /** Answers who waits and tells every client to come back later; resolves when all that was accepted is on disk. */
    async stop(): Promise<void> {
      await fetches.stop();
      await drainConnections();
      isClosed = true;
      await memberships.close();
      await upkeep.stop();
      await queue.close();
      // On a full disk the WAL stays beside the file. All that was acknowledged is on disk either way.
      await db.close().catch((error: unknown) => log("database not tidied up", { message: String(error) }));
    },
  };
}
