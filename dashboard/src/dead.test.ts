import { describe, expect, it } from "vitest";
import { bodyOf, type Group, headline, inWords, lineOf, rateOf, toType, totalOf } from "./dead";

const group = (count: number): Group => ({
  group: count,
  function: "mail",
  reason: "fail",
  error: "",
  count,
  oldest: 1,
  newest: 2,
  handle: "H:here:1",
});

describe("what is meant", () => {
  it.each([
    [{}, { all: true }, "everything", "of all functions"],
    [{ function: "mail" }, { function: "mail", all: false }, "mail", "of mail"],
    [{ reason: "lost" }, { reason: "lost", all: false }, "lost", "of all functions with the reason lost"],
    [
      { function: "mail", reason: "lost" },
      { function: "mail", reason: "lost", all: false },
      "mail",
      "of mail with the reason lost",
    ],
    [{ group: 7, function: "mail" }, { group: 7, all: false }, "mail", "of mail in this group"],
    [{ handles: ["H:here:1"] }, { handles: ["H:here:1"], all: false }, undefined, "H:here:1"],
  ] as const)("%j is told to the API, typed and said", (meant, body, typed, words) => {
    const copy = structuredClone(meant) as Parameters<typeof bodyOf>[0];
    expect(bodyOf(copy)).toEqual(body);
    expect(toType(copy)).toBe(typed);
    expect(inWords(copy)).toBe(words);
  });
});

describe("how many there are", () => {
  it("is what all groups have", () => {
    expect(totalOf({ groups: [group(3), group(2)], more: 0 })).toEqual({ count: 5, isLeast: false });
    expect(totalOf({ groups: [], more: 0 })).toEqual({ count: 0, isLeast: false });
  });
  it("is at least that where there are more groups", () => {
    expect(totalOf({ groups: [group(3)], more: 1 })).toEqual({ count: 3, isLeast: true });
  });
});

describe("a rate", () => {
  it.each([
    ["", undefined],
    ["  ", undefined],
    ["10", 10],
    [" 10 ", 10],
    ["0", null],
    ["-1", null],
    ["1.5", null],
    ["1000000", null],
    ["ten", null],
  ])("of %j is %j", (text, found) => {
    expect(rateOf(text)).toBe(found);
  });
});

describe("the line of an error that says most", () => {
  it.each([
    ["", ""],
    ["boom", "boom"],
    ["boom\nand more", "boom"],
    ['Traceback (most recent call last):\n  File "a.py", line 1\nValueError: no\n', "ValueError: no"],
  ])("of %j is %j", (text, line) => {
    expect(lineOf(text)).toBe(line);
  });
});

describe("a headline", () => {
  it("is the error, else what happened", () => {
    expect(headline("boom\nat once", "fail")).toBe("boom");
    expect(headline("", "timeout")).toBe("it ran for too long");
    expect(headline("", "unknown")).toBe("unknown");
  });
});
