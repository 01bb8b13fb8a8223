import { describe, expect, it } from "vitest";
import { urlOf } from "./api/client";
import { partsOf, timeToDrain } from "./rates";

const pace = (into: number | null, out: number | null) => ({ into, out, curve: [] });

describe("the time to drain", () => {
  it.each([
    [0, pace(5, 1), 0],
    [100, pace(5, 15), 10],
    [100, pace(5, 5), Number.POSITIVE_INFINITY],
    [100, pace(5, 0), Number.POSITIVE_INFINITY],
    [100, pace(null, null), null],
    [100, undefined, null],
  ])("of %d jobs at %o is %o", (waiting, told, seconds) => {
    expect(timeToDrain(waiting, told)).toBe(seconds);
  });
});

describe("the functions that are asked for", () => {
  it("are asked for together, in URLs that are not too long", () => {
    expect(partsOf([])).toEqual([]);
    expect(partsOf(["a", "b"])).toEqual([["a", "b"]]);
    const many = Array.from({ length: 120 }, (_, at) => `f${at}`);
    expect(partsOf(many).map((part) => part.length)).toEqual([50, 50, 20]);
    expect(partsOf(many).flat()).toEqual(many);
    const [first, third] = ["ü".repeat(600), "c".repeat(900)];
    expect(partsOf([first, "b", third, "d"])).toEqual([
      [first, "b"],
      [third, "d"],
    ]);
    expect(partsOf(["x".repeat(9000)])).toEqual([["x".repeat(9000)]]);
  });

  it("stand each on its own in the URL, whatever their names", () => {
    const url = urlOf("/api/v1/history/functions", {}, { function: ["a,b", "c&d"], points: 45, after: "" });
    expect(url).toBe("/api/v1/history/functions?function=a%2Cb&function=c%26d&points=45");
  });
});
