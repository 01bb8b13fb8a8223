import { describe, expect, it } from "vitest";
import { timeToDrain } from "./rates";

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
