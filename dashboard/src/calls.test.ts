import { describe, expect, it } from "vitest";
import {
  type Call,
  curl,
  php,
  phpString,
  python,
  pythonBytes,
  pythonString,
  reachable,
  shellWord,
  type Where,
} from "./calls";

const WHERE: Where = { http: "http://here:8080", gearman: "here:4730", hasTokens: false };
const CALL: Call = {
  function: "resize",
  payload: { kind: "text", text: "cat.png" },
  unique: "",
  priority: "normal",
  isBackground: false,
  delay: null,
};

describe("quoting", () => {
  it("keeps a shell from reading anything into a word", () => {
    expect(shellWord('$(rm) `x` "y" \\ it\'s')).toBe("'$(rm) `x` \"y\" \\ it'\\''s'");
  });
  it("escapes what counts between single quotes in PHP", () => {
    expect(phpString("it's C:\\dir $x\n")).toBe("'it\\'s C:\\\\dir $x\n'");
  });
  it.each([
    ["plain", '"plain"'],
    ['{"width": 80}', "'{\"width\": 80}'"],
    ['it\'s "so"', '"it\'s \\"so\\""'],
    ["a\\b\n\t\r\0\x7f", '"a\\\\b\\n\\t\\r\\x00\\x7f"'],
    ["a\u2028b\u200b", '"a\\u2028b\\u200b"'],
    ["grüße 😀", '"grüße 😀"'],
  ])("writes %j as a string of Python", (text, literal) => {
    expect(pythonString(text)).toBe(literal);
  });
  it("writes bytes of Python as such only where they are ASCII", () => {
    expect([pythonBytes("a\x01"), pythonBytes("ü")]).toEqual(['b"a\\x01"', '"ü".encode()']);
  });
});

describe("calls", () => {
  it("says no more than what differs from the usual", () => {
    expect(curl(CALL, WHERE)).toBe(
      "curl --data-raw 'cat.png' \\\n  -H 'Content-Type: application/octet-stream' \\\n" +
        "  'http://here:8080/api/v1/jobs?function=resize'",
    );
    expect(python(CALL, WHERE)).toContain('    result = client.run("resize", b"cat.png")');
    expect(php(CALL, WHERE)).toContain("$client->doNormal('resize', 'cat.png');");
  });
  it("names the unique, the priority and the background", () => {
    const call: Call = { ...CALL, unique: "a b&c", priority: "high", isBackground: true };
    expect(curl(call, WHERE)).toContain("?function=resize&unique=a+b%26c&priority=high&background=true'");
    expect(python(call, WHERE)).toContain('submit_background("resize", b"cat.png", unique="a b&c", priority="high")');
    expect(php(call, WHERE)).toContain("$client->doHighBackground('resize', 'cat.png', 'a b&c');");
  });
  it("delays a job, in PHP over HTTP", () => {
    const call: Call = { ...CALL, priority: "high", delay: 90 };
    expect(curl(call, WHERE)).toContain("?function=resize&delay=90'");
    expect(python(call, WHERE)).toContain('submit_background("resize", b"cat.png", when=timedelta(seconds=90))');
    expect(php(call, WHERE)).toContain("file_get_contents('http://here:8080/api/v1/jobs?function=resize&delay=90'");
  });
  it("sends nothing, in PHP over HTTP", () => {
    const call: Call = { ...CALL, payload: { kind: "text", text: "" } };
    expect(curl(call, WHERE)).toContain("--data-raw ''");
    expect(python(call, WHERE)).toContain('client.run("resize", b"")');
    expect(php(call, WHERE)).toContain("// GearmanClient takes no empty payload: this goes over HTTP.");
  });
  it("reads a file where the call is made", () => {
    const call: Call = { ...CALL, payload: { kind: "file", name: "it's.png" } };
    expect(curl(call, WHERE)).toContain("--data-binary '@it'\\''s.png'");
    expect(python(call, WHERE)).toContain('Path("it\'s.png").read_bytes()');
    expect(php(call, WHERE)).toContain("file_get_contents('it\\'s.png')");
  });
  it("takes the token from the environment, where one is needed", () => {
    const where = { ...WHERE, hasTokens: true };
    expect(curl(CALL, where)).toContain('-H "Authorization: Bearer $GEARTRAIN_TOKEN"');
    expect(php({ ...CALL, delay: 1 }, where)).toContain("'Authorization: Bearer ' . getenv('GEARTRAIN_TOKEN')");
  });
  it("gives PHP the host and the port apart", () => {
    expect(php(CALL, { ...WHERE, gearman: "[::1]:4731" })).toContain("addServer('::1', 4731)");
  });
});

describe("addresses", () => {
  it.each([
    [["127.0.0.1:4730"], "127.0.0.1:4730"],
    [["0.0.0.0:4730"], "host:4730"],
    [["[::]:4731"], "host:4731"],
    [["unix:/run/g.sock", "[::1]:4730"], "[::1]:4730"],
    [["unix:/run/g.sock"], "host:4730"],
  ])("of %j it is %s", (addresses, address) => {
    expect(reachable(addresses, "host")).toBe(address);
  });
});
