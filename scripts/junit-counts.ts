// bun scripts/junit-counts.ts <junit.xml> <exit code of the test run>
// Prints "N passed, N failed, N skipped". Exits with 1 unless something passed and nothing failed.

const ROOT_ELEMENT = /<testsuites\b[^>]*>/;

export interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/**
 * A run can fail without a failed test: a file does not load, a process dies before it writes its report, a time
 * limit strikes. That counts as one failure, so that no red run says "0 failed".
 */
export function countTests(junitXml: string, exitCode: number): TestCounts {
  const root = ROOT_ELEMENT.exec(junitXml)?.[0] ?? "";
  const numberOf = (attribute: string) => Number(new RegExp(`\\b${attribute}="(\\d+)"`).exec(root)?.[1] ?? 0);
  const failed = numberOf("failures");
  const skipped = numberOf("skipped");
  return {
    passed: numberOf("tests") - failed - skipped,
    failed: failed === 0 && exitCode !== 0 ? 1 : failed,
    skipped,
  };
}

export function isGreen({ passed, failed }: TestCounts): boolean {
  return passed > 0 && failed === 0;
}

if (import.meta.main) {
  const [path = "", exitCode = "1"] = process.argv.slice(2);
  const report = Bun.file(path);
  const counts = countTests((await report.exists()) ? await report.text() : "", Number(exitCode));
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exitCode = isGreen(counts) ? 0 : 1;
}
