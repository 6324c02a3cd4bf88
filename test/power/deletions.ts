// A topic that is deleted and one that is trimmed while the power goes, both by more records than one step takes.

import { HttpClient } from "../support/http-client.ts";
import { type Journal, valueText } from "./journal.ts";

const RECORDS = 6_000;
const TRIM_BEFORE = 5_500;
const DOOMED = "doomed";
const TRIMMED = "trimmed";

export class Deletions {
  readonly #journal: Journal;
  #isDeleted = false;
  #isTrimmed = false;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  async prepare(url: string): Promise<void> {
    for (const topic of [DOOMED, TRIMMED]) {
      const values = Array.from({ length: RECORDS }, () => this.#journal.name(topic));
      const send = this.#journal.send({
        producer: topic,
        isIdempotent: false,
        appends: [{ topic, values }],
      });
      const records = values.map((value) => ({ value: valueText(value, 20), partition: 0 }));
      const { status, body } = await new HttpClient({ url }).call("POST", `/v1/topics/${topic}/records`, {
        records,
      });
      if (status !== 200) throw new Error(`${topic} was not filled: ${JSON.stringify(body)}`);
      this.#journal.sent(send, [{ topic, partition: 0, offset: 0, count: RECORDS }]);
    }
  }

  /** Resolves when both are answered or the server is gone. */
  async run(url: string): Promise<void> {
    const http = new HttpClient({ url });
    const trim = `/v1/topics/${TRIMMED}/partitions/0/records?before=${TRIM_BEFORE}`;
    const succeeds = (path: string) =>
      http.call("DELETE", path).then(
        ({ status }) => status < 300,
        () => false,
      );
    const onDeleted = succeeds(`/v1/topics/${DOOMED}`).then((isDone) => {
      this.#isDeleted = isDone;
    });
    const onTrimmed = succeeds(trim).then((isDone) => {
      this.#isTrimmed = isDone;
    });
    await Promise.all([onDeleted, onTrimmed]);
  }

  /** What was answered and is not so after the power cut. */
  async findUndone(url: string): Promise<readonly string[]> {
    const http = new HttpClient({ url });
    const doomed = await http.call("GET", `/v1/topics/${DOOMED}`);
    const trimmed = await http.call("GET", `/v1/topics/${TRIMMED}`);
    const logStart = trimmed.body.partitions?.[0]?.logStartOffset;
    return [
      ...(this.#isDeleted && doomed.status !== 404 ? [`${DOOMED} is back after its deletion`] : []),
      ...(this.#isTrimmed && logStart !== TRIM_BEFORE ? [`${TRIMMED} starts at ${logStart} again`] : []),
    ];
  }
}
