// Event sourcing with a conditional append: an account is the sum of its events, and no two withdrawals that each
// looked at the same balance can both succeed.
//
//   bun examples/event-sourcing.ts [http://127.0.0.1:4500]        (or: deno run --allow-net)
//
// Every account is a partition of "accounts". Whoever decides reads its events to the end, and appends on the condition
// that the log still ends there. If somebody else was faster the answer is `conflict`: read what is new, decide again.

import process from "node:process";
import { connect, TidemarkError } from "@tidemark/client";

const TOPIC = "accounts";
const ACCOUNTS = 4;

const tidemark = connect({ url: process.argv[2] ?? "http://127.0.0.1:4500" });

type AccountEvent = { readonly deposited: number } | { readonly withdrawn: number };

interface Account {
  readonly balance: number;
  /** Where its log ended when it was read. */
  readonly end: number;
}

/** The events from `account.end` on, added to what was known. */
async function catchUp(partition: number, account: Account = { balance: 0, end: 0 }): Promise<Account> {
  let { balance, end } = account;
  for (;;) {
    const fetched = await tidemark.admin.readRecords({ topic: TOPIC, partition, from: end });
    for (const { value } of fetched.records) balance += amountOf(value as AccountEvent);
    end = fetched.next;
    if (end >= fetched.logEndOffset) return { balance, end };
  }
}

function amountOf(event: AccountEvent): number {
  return "deposited" in event ? event.deposited : -event.withdrawn;
}

/** Returns the account as it was left; undefined where it does not have so much. */
async function withdraw(partition: number, amount: number): Promise<Account | undefined> {
  for (let account = await catchUp(partition); ; account = await catchUp(partition, account)) {
    const { balance, end } = account;
    if (balance < amount) return undefined;
    if (await append(partition, { withdrawn: amount }, end))
      return { balance: balance - amount, end: end + 1 };
  }
}

/** False when the log does not end at `end` any more, where that matters. */
async function append(partition: number, event: AccountEvent, end?: number): Promise<boolean> {
  const expect = end === undefined ? undefined : [{ partition, logEndOffset: end }];
  try {
    await tidemark.produce(TOPIC, { partition, value: event }, { expect });
    return true;
  } catch (error) {
    if (error instanceof TidemarkError && error.code === "conflict") return false;
    throw error;
  }
}

await tidemark.admin.putTopic(TOPIC, { partitionCount: ACCOUNTS });
await append(0, { deposited: 100 }); // whatever else has happened to the account: nothing has to be decided
// Ten at once, who all see the same balance: as many succeed as there is money for.
const outcomes = await Promise.all(Array.from({ length: 10 }, () => withdraw(0, 30)));
const { balance } = await catchUp(0);
const succeeded = outcomes.filter((outcome) => outcome).length;
console.log(`${succeeded} of 10 withdrawals of 30 succeeded, ${balance} is left`);
await tidemark.close();
