import { expect, test } from "vitest";
import { bytesOf, hexDump, isJson, pictureType, pictureUrl, pretty, prettyJson, readable, viewsOf } from "./content";

const base64 = (...codes: number[]) => ({ base64: btoa(String.fromCharCode(...codes)) });
const PNG = base64(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0);

test("content is bytes", () => {
  expect(bytesOf({ text: "ü" })).toEqual(new Uint8Array([0xc3, 0xbc]));
  expect(bytesOf(base64(255, 0))).toEqual(new Uint8Array([255, 0]));
});

test("a picture is known by its first bytes", () => {
  expect(pictureType(PNG)).toBe("image/png");
  expect(pictureType(base64(0xff, 0xd8, 0xff, 0xe0))).toBe("image/jpeg");
  expect(pictureType({ text: "GIF89a" })).toBe("image/gif");
  expect(pictureType({ text: '<?xml version="1.0"?>\n<svg xmlns="…">' })).toBe("image/svg+xml");
  expect(pictureType(base64(1, 2, 3))).toBe(null);
  expect(pictureType({ text: "" })).toBe(null);
  expect(pictureType({ text: "BM, as the names of some begin" })).toBe(null);
  expect(pictureUrl(PNG, "image/png")).toBe(`data:image/png;base64,${PNG.base64}`);
});

test("what tells most is shown first", () => {
  expect(viewsOf(PNG)).toEqual(["picture", "hex"]);
  expect(viewsOf({ text: '{"a": 1}' })).toEqual(["json", "text", "hex"]);
  expect(viewsOf({ text: "{no JSON" })).toEqual(["text", "hex"]);
  expect(isJson({ text: "17" })).toBe(false);
});

test("JSON is broken into lines, and its values stay as they are written", () => {
  const text = (given: string) =>
    prettyJson(given)
      .map((token) => token.text)
      .join("");
  expect(text('{"a":[1,{"b":null}],"c":{},"d":[]}')).toBe(
    '{\n  "a": [\n    1,\n    {\n      "b": null\n    }\n  ],\n  "c": {},\n  "d": []\n}',
  );
  expect(text('[12345678901234567890,1.50,"a,\\"{b"]')).toBe('[\n  12345678901234567890,\n  1.50,\n  "a,\\"{b"\n]');
  expect(prettyJson('{"a":"b"}').map(({ kind }) => kind)).toEqual(["plain", "key", "plain", "string", "plain"]);
});

test("bytes are shown as hexdump does", () => {
  expect(hexDump(new Uint8Array([0x41, 0, 0xff]))).toBe(`00000000  41 00 ff${" ".repeat(15)}  ${" ".repeat(23)}  A..`);
  const lines = hexDump(new Uint8Array(17)).split("\n");
  expect(lines[0]).toBe(`00000000  ${"00 ".repeat(8)} ${"00 ".repeat(8)} ${".".repeat(16)}`);
  expect(lines[1]?.slice(0, 12)).toBe("00000010  00");
});

test("content is read as text, or as some of its bytes", () => {
  expect(readable({ text: "ü" })).toBe("ü");
  expect(readable(base64(0, 255, 65))).toBe(`00000000  ${"00 ff 41".padEnd(48)}  ..A`);
  expect(readable(base64(...new Array(5000).fill(0)))).toContain("and 904 bytes more");
  expect(pretty('{"a":[12345678901234567890]}')).toBe('{\n  "a": [\n    12345678901234567890\n  ]\n}');
  expect([pretty("{not"), pretty("12")]).toEqual(["{not", "12"]);
});
