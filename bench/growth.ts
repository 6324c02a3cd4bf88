export function measureGrowth(): Promise<string> {
  throw new Error("--growth is not built yet");
}
