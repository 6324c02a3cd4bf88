// Event sourcing with a conditional append: an account is the sum of its events, and no two withdrawals that each
// looked at the same balance can both succeed.
//
//   bun examples/event-sourcing.ts [http://127.0.0.1:4500]        (or: node 24, deno run --allow-net)
//
// Every account is a partition of "accounts". Whoever decides reads its events to the end, and appends on the condition
// that the log still ends there. If somebody else was faster the answer is `conflict`: read what is new, decide again.

import process from "node:process";

const SERVER = process.argv[2] ?? "http://127.0.0.1:4500";
const TOPIC = "accounts";
const ACCOUNTS = 4;

type AccountEvent = { readonly deposited: number } | { readonly withdrawn: number };

export interface Account {
  readonly balance: number;
  /** Where its log ended when it was read. */
  readonly end: number;
}

/** The events from `account.end` on, added to what was known. */
export async function catchUp(
  partition: number,
  account: Account = { balance: 0, end: 0 },
): Promise<Account> {
  let { balance, end } = account;
  for (;;) {
    const answer = await fetch(`${SERVER}/v1/topics/${TOPIC}/partitions/${partition}/records?from=${end}`);
    if (!answer.ok) throw new Error(await answer.text());
    const { records, next, logEndOffset } = (await answer.json()) as {
      readonly records: readonly { readonly value: AccountEvent }[];
      readonly next: number;
      readonly logEndOffset: number;
    };
    for (const { value } of records) balance += "deposited" in value ? value.deposited : -value.withdrawn;
    end = next;
    if (next >= logEndOffset) return { balance, end };
  }
}

/** Returns the account as it was left; undefined where it does not have so much. */
export async function withdraw(partition: number, amount: number): Promise<Account | undefined> {
  let account = await catchUp(partition);
  for (;;) {
    if (account.balance < amount) return undefined;
    if (await append(partition, { withdrawn: amount }, account.end))
      return { balance: account.balance - amount, end: account.end + 1 };
    account = await catchUp(partition, account);
  }
}

/** Whatever else has happened to the account: nothing has to be decided. */
export async function deposit(partition: number, amount: number): Promise<void> {
  await append(partition, { deposited: amount });
}

/** True when the event is on disk; false when the log does not end at `end` any more, where that matters. */
async function append(partition: number, event: AccountEvent, end?: number): Promise<boolean> {
  const body = {
    records: [{ value: event, partition }],
    ...(end !== undefined && { expect: [{ partition, logEndOffset: end }] }),
  };
  const answer = await fetch(`${SERVER}/v1/topics/${TOPIC}/records`, {
    method: "POST",
    body: JSON.stringify(body),
  });
  if (answer.ok) return true;
  const problem = (await answer.json()) as { readonly code: string; readonly detail: string };
  if (problem.code !== "conflict") throw new Error(problem.detail);
  return false;
}

if (import.meta.main) {
  await fetch(`${SERVER}/v1/topics/${TOPIC}`, {
    method: "PUT",
    body: JSON.stringify({ partitionCount: ACCOUNTS }),
  });
  await deposit(0, 100);
  // Ten at once, who all see the same balance: as many succeed as there is money for.
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => withdraw(0, 30)));
  const { balance } = await catchUp(0);
  console.log(
    `${outcomes.filter((outcome) => outcome).length} of 10 withdrawals of 30 succeeded, ${balance} is left`,
  );
}
