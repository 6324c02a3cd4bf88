import { describe, expect, test } from "bun:test";
import { readSettings } from "../../src/runtimes/command-line.ts";
import { requirePlatform, type Settings, SettingsError, settingsOf } from "../../src/runtimes/settings.ts";

const DEV: Settings = {
  mode: "dev",
  host: "127.0.0.1",
  port: 4500,
  database: { kind: "file", path: "./.tidemark/tidemark.db" },
  createsTopicsOnFirstUse: true,
  allowedOrigins: [],
  offsetRetentionMs: null,
  isWithoutCredentials: false,
};

type Environment = Parameters<typeof readSettings>[1];

function refusal(argv: readonly string[], environment: Environment = {}): string {
  try {
    readSettings(argv, environment);
  } catch (error) {
    if (error instanceof SettingsError) return error.message;
    throw error;
  }
  throw new Error(`${argv.join(" ")} was accepted`);
}

test("readSettings() has a default for everything but the command", () => {
  expect(readSettings(["dev"], {})).toEqual(DEV);
  expect(readSettings(["serve"], {})).toEqual({ ...DEV, mode: "serve", createsTopicsOnFirstUse: false });
});

describe("readSettings() takes a flag over a variable over the default:", () => {
  const settings: readonly {
    setting: keyof Settings;
    flag: readonly string[];
    variable: Environment;
    byFlag: unknown;
    byVariable: unknown;
  }[] = [
    {
      setting: "port",
      flag: ["--port", "1"],
      variable: { PORT: "2" },
      byFlag: 1,
      byVariable: 2,
    },
    {
      setting: "host",
      flag: ["--host", "localhost"],
      variable: { HOST: "::1" },
      byFlag: "localhost",
      byVariable: "::1",
    },
    {
      setting: "database",
      flag: ["--db", "file:flag.db"],
      variable: { TURSO_DATABASE_URL: "file:variable.db" },
      byFlag: { kind: "file", path: "flag.db" },
      byVariable: { kind: "file", path: "variable.db" },
    },
    {
      setting: "database",
      flag: ["--db", "http://flag.example:1"],
      variable: { TURSO_DATABASE_URL: "https://variable.example" },
      byFlag: { kind: "remote", url: "http://flag.example:1", authToken: undefined },
      byVariable: { kind: "remote", url: "https://variable.example", authToken: undefined },
    },
    {
      setting: "createsTopicsOnFirstUse",
      flag: ["--auto-create"],
      variable: { TIDEMARK_AUTO_CREATE: "false" },
      byFlag: true,
      byVariable: false,
    },
    {
      setting: "allowedOrigins",
      flag: ["--allow-origin", "https://flag.example"],
      variable: { TIDEMARK_ALLOW_ORIGIN: "https://variable.example" },
      byFlag: ["https://flag.example"],
      byVariable: ["https://variable.example"],
    },
    {
      setting: "offsetRetentionMs",
      flag: ["--offset-retention-ms", "1"],
      variable: { TIDEMARK_OFFSET_RETENTION_MS: "9007199254740991" },
      byFlag: 1,
      byVariable: Number.MAX_SAFE_INTEGER,
    },
  ];

  test.each(settings)("$setting", ({ setting, flag, variable, byFlag, byVariable }) => {
    expect(readSettings(["serve"], variable)[setting]).toEqual(byVariable as Settings[typeof setting]);
    expect(readSettings(["serve", ...flag], variable)[setting]).toEqual(byFlag as Settings[typeof setting]);
    const empty = Object.fromEntries(Object.keys(variable).map((name) => [name, ""]));
    expect(readSettings(["serve"], empty)[setting]).toEqual(readSettings(["serve"], {})[setting]);
  });

  test("the token", () => {
    const url = "libsql://db.example.turso.io";
    const tokenOf = (argv: readonly string[], environment: Environment) =>
      readSettings(["serve", "--db", url, ...argv], environment).database;
    const variable = { TURSO_AUTH_TOKEN: "variable" };
    expect(tokenOf([], {})).toEqual({ kind: "remote", url, authToken: undefined });
    expect(tokenOf([], { TURSO_AUTH_TOKEN: "" })).toEqual({ kind: "remote", url, authToken: undefined });
    expect(tokenOf([], variable)).toEqual({ kind: "remote", url, authToken: "variable" });
    expect(tokenOf(["--db-token", "flag"], variable)).toEqual({ kind: "remote", url, authToken: "flag" });
  });

  test("of a flag given twice the last counts", () => {
    expect(readSettings(["dev", "--port", "1", "--port=2"], {}).port).toBe(2);
  });
});

describe("requirePlatform()", () => {
  const GIVEN = { TURSO_DATABASE_URL: "libsql://db.example", TIDEMARK_WITHOUT_CREDENTIALS: "true" };
  const required = (environment: Environment) =>
    requirePlatform(settingsOf("serve", {}, environment), environment);

  test("takes a database that is named, where being open to all is", () => {
    expect(required(GIVEN).database).toMatchObject({ kind: "remote", url: "libsql://db.example" });
  });

  test.each(["TURSO_DATABASE_URL", "TIDEMARK_WITHOUT_CREDENTIALS"])("refuses to go without %s", (name) => {
    for (const environment of [
      { ...GIVEN, [name]: undefined },
      { ...GIVEN, [name]: "" },
    ])
      expect(() => required(environment)).toThrow(name);
  });
});

describe("readSettings() takes", () => {
  test.each(["0.0.0.0", "::", "192.168.1.5"])(
    "the public host %s where being open to all is said",
    (host) => {
      const flag = readSettings(["serve", "--host", host, "--without-credentials"], {});
      const variable = readSettings(["serve"], { HOST: host, TIDEMARK_WITHOUT_CREDENTIALS: "1" });
      expect([flag.host, variable.host]).toEqual([host, host]);
    },
  );

  test.each([
    ["0", 0],
    ["80", 80],
    ["65535", 65_535],
  ])("the port %s", (text, port) => {
    expect(readSettings(["dev", "--port", text], {}).port).toBe(port);
  });

  test.each([
    ["file:a.db", "a.db"],
    ["file:./a/b.db", "./a/b.db"],
    ["file:../a.db", "../a.db"],
    ["file:/var/a.db", "/var/a.db"],
    ["file:///var/a.db", "/var/a.db"],
    ["file://localhost/var/a.db", "/var/a.db"],
    ["file:/var/a%20b%25.db", "/var/a b%.db"],
    ["file:/var/a b#c'd.db", "/var/a b#c'd.db"],
    ["file:/var/ä.db", "/var/ä.db"],
  ])("the database %s", (url, path) => {
    expect(readSettings(["serve", "--db", url], {}).database).toEqual({ kind: "file", path });
  });

  test.each([
    ["http://localhost:8080", "http://localhost:8080"],
    ["http://127.0.0.1:8080/", "http://127.0.0.1:8080"],
    ["http://[::1]:8080", "http://[::1]:8080"],
    ["https://db.example", "https://db.example"],
    ["libsql://db-me.aws-eu-west-1.turso.io", "libsql://db-me.aws-eu-west-1.turso.io"],
  ])("the remote database %s", (given, url) => {
    for (const mode of ["dev", "serve"])
      expect(readSettings([mode, "--db", given], {}).database).toMatchObject({ kind: "remote", url });
  });

  test("a token beside a file, and keeps it to itself", () => {
    const { database } = readSettings(["dev"], { TURSO_AUTH_TOKEN: "s3cret" });
    expect(database).toEqual({ kind: "file", path: "./.tidemark/tidemark.db" });
  });

  test.each([
    ["true", true],
    ["1", true],
    ["false", false],
    ["0", false],
  ])("TIDEMARK_AUTO_CREATE=%s in serve", (text, isOn) => {
    expect(readSettings(["serve"], { TIDEMARK_AUTO_CREATE: text }).createsTopicsOnFirstUse).toBe(isOn);
  });

  test("topics on first use in dev, whatever the variable says", () => {
    expect(readSettings(["dev"], { TIDEMARK_AUTO_CREATE: "false" }).createsTopicsOnFirstUse).toBe(true);
  });

  test("a list of origins, spaces and empty entries aside", () => {
    const list = " https://app.example, ,http://127.0.0.1:3000,";
    expect(readSettings(["serve", "--allow-origin", list], {}).allowedOrigins).toEqual([
      "https://app.example",
      "http://127.0.0.1:3000",
    ]);
  });
});

describe.each(["dev", "serve"])("readSettings() refuses in %s", (mode) => {
  test.each(["-1", "65536", "4.5", "1e3", "0x50", " 80", "http", ""])('the port "%s"', (port) => {
    expect(refusal([mode, `--port=${port}`])).toBe(`the port must be 0 to 65535, found "${port}"`);
    if (port !== "") expect(refusal([mode], { PORT: port })).toContain(`found "${port}"`);
  });

  test.each([
    "0.0.0.0",
    "::",
    "192.168.1.5",
    "8.8.8.8",
    "example.com",
    "127.0.0.1.example.com",
    "localhost.",
    "",
  ])('the public host "%s", as nobody would be asked who they are', (host) => {
    const message = refusal([mode, `--host=${host}`]);
    expect(message).toContain(`refused to listen on ${host}`);
    expect(message).toContain("credentials");
    expect(message).toContain("127.0.0.1");
    if (host !== "") expect(refusal([mode], { HOST: host })).toBe(message);
  });

  test.each([
    "libsql://user:s3cret@db.example.turso.io?authToken=s3cret",
    "https://db.example.turso.io/?authToken=s3cret#s3cret",
    "wss://s3cret@db.example",
    "http://127.0.0.1:8080/s3cret",
    "db.example.turso.io?authToken=s3cret",
    "libsql://[s3cret",
    "http://db.example:s3cret",
    "http://s3cret@",
    "libsql://db.example?authToken=s3cret",
    "https://db.example/?s3cret",
    "ws://db.example/s3cret",
    "HTTP://user:s3cret@db.example",
    "s3cret",
  ])("the remote database %s, without its secret", (url) => {
    for (const message of [
      refusal([mode, "--db", url]),
      refusal([mode], { TURSO_DATABASE_URL: url, TURSO_AUTH_TOKEN: "s3cret" }),
    ]) {
      expect(message).toContain("cannot open the database");
      expect(message).toContain("file:PATH");
      expect(message).not.toContain("s3cret");
    }
  });

  test.each(["file:", "file:a.db?mode=ro", "file://elsewhere/a.db", "file:/a%.db", "file:/a%ff.db"])(
    "the database %s",
    (url) => {
      expect(refusal([mode, "--db", url])).toContain("cannot open the database");
      expect(refusal([mode], { TURSO_DATABASE_URL: url })).toContain("cannot open the database");
    },
  );

  test("a file with a token, without showing the token", () => {
    expect(refusal([mode, "--db", "file:a.db?authToken=s3cret"])).not.toContain("s3cret");
  });

  test("an empty host, whatever else is said", () => {
    expect(refusal([mode, "--host=", "--without-credentials"])).toContain("refused to listen on");
  });

  test.each(["yes", "TRUE", "on", "2"])("TIDEMARK_WITHOUT_CREDENTIALS=%s", (text) => {
    expect(refusal([mode], { TIDEMARK_WITHOUT_CREDENTIALS: text })).toContain(`found "${text}"`);
  });

  test.each(["yes", "TRUE", "on", "2"])("TIDEMARK_AUTO_CREATE=%s", (text) => {
    const message = refusal([mode], { TIDEMARK_AUTO_CREATE: text });
    expect(message).toContain("auto-create must be true or false");
    expect(message).toContain(`"${text}"`);
  });

  test.each([
    "app.example",
    "https://app.example/",
    "https://app.example/path",
    "*",
    "null",
    "https://APP.example",
  ])("the origin %s", (origin) => {
    const list = `https://good.example,${origin}`;
    expect(refusal([mode, "--allow-origin", list])).toContain(`found "${origin}"`);
    expect(refusal([mode], { TIDEMARK_ALLOW_ORIGIN: list })).toContain(`found "${origin}"`);
  });

  test.each(["0", "-1", "1.5", "7d", " 1", "9007199254740992", "99999999999999999"])(
    "offsets that are kept for %j ms",
    (ms) => {
      expect(refusal([mode, `--offset-retention-ms=${ms}`])).toContain(`1 or more, found "${ms}"`);
      expect(refusal([mode], { TIDEMARK_OFFSET_RETENTION_MS: ms })).toContain(`found "${ms}"`);
    },
  );

  test("a flag that it does not know, by name, without its value", () => {
    const message = refusal([mode, "--auth-token=s3cret"]);
    expect(message).toContain("--auth-token");
    expect(message).toContain("usage: tidemark");
    expect(message).not.toContain("s3cret");
  });

  test("anything else without showing the token that was given with it", () => {
    const token = ["--db-token", "s3cret"];
    for (const rest of [
      ["--port", "http"],
      ["--db", "http://a/b"],
      ["--host", "::"],
      ["--nothing"],
      ["orders"],
    ])
      expect(refusal([mode, ...token, ...rest], { TURSO_AUTH_TOKEN: "s3cret" })).not.toContain("s3cret");
  });

  test.each(["--port", "--db", "--db-token", "--host", "--auto-create=true", "orders", "-- orders"])(
    "the arguments %s",
    (args) => {
      expect(refusal([mode, ...args.split(" ")])).toContain("usage: tidemark");
    },
  );
});

test.each([[[]], [["start"]], [["--port", "1"]], [["--help"]], [[""]]])(
  "readSettings() refuses the command line %j and says how to use it",
  (argv) => {
    expect(refusal(argv)).toContain("usage: tidemark dev|serve");
  },
);
