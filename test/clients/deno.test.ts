import { describe } from "bun:test";
import { testBehaviour } from "./behaviour.ts";

describe("the client library on Deno", () => testBehaviour("deno"));
