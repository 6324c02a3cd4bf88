import { describe } from "bun:test";
import { testServerProcess } from "./process-tests.ts";

describe("on Bun", () => testServerProcess("bun"));
