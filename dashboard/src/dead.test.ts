import { describe, expect, it } from "vitest";
import { bodyOf, headline, inWords, lineOf, rateOf, toType } from "./dead";

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
