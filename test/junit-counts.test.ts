import { expect, test } from "bun:test";
import { countTests, isGreen } from "../scripts/junit-counts.ts";

const report = (attributes: string) =>
  `<?xml version="1.0"?>\n<testsuites name="bun test" ${attributes} time="0.1">\n  <testsuite tests="99" failures="99">`;

test("countTests() reads the totals of the run, not those of one file", () => {
  const counts = countTests(report('tests="10" assertions="40" failures="0" skipped="3"'), 0);
  expect(counts).toEqual({ passed: 7, failed: 0, skipped: 3 });
  expect(isGreen(counts)).toBe(true);
});

test("countTests() counts failed tests", () => {
  const counts = countTests(report('tests="10" failures="2" skipped="3"'), 1);
  expect(counts).toEqual({ passed: 5, failed: 2, skipped: 3 });
  expect(isGreen(counts)).toBe(false);
});

test("countTests() counts a run that failed without a failed test as one failure", () => {
  const counts = countTests(report('tests="10" failures="0" skipped="0"'), 1);
  expect(counts).toEqual({ passed: 10, failed: 1, skipped: 0 });
  expect(isGreen(counts)).toBe(false);
});

test("a run without a report, without tests or with skipped tests alone is not green", () => {
  for (const xml of [
    "",
    report('tests="0" failures="0" skipped="0"'),
    report('tests="3" failures="0" skipped="3"'),
  ]) {
    expect(isGreen(countTests(xml, 0))).toBe(false);
  }
});
