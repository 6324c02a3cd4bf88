// What was asked of the servers and what became of it.

export class Tally {
  acknowledged = 0;
  refused = 0;
  /** Sends that had at least one attempt of which nobody could say whether it was done. */
  unknown = 0;
  /** Those of them that their sequence has settled. */
  settled = 0;
  recordsRead = 0;
  /** Requests whose connection went without an answer. */
  cut = 0;
  /** By code: how often it was answered. */
  readonly codes = new Map<string, number>();
  #unanswered = 0;

  /** Requests that are on their way or being answered. */
  get unanswered(): number {
    return this.#unanswered;
  }

  asked(): void {
    this.#unanswered += 1;
  }

  /** `cut`: by the other side, or by what lies between. `left`: by the client, who did not want to wait any more. */
  ended(how: "answered" | "cut" | "left"): void {
    this.#unanswered -= 1;
    if (how === "cut") this.cut += 1;
  }

  code(code: string): void {
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1);
  }
}
