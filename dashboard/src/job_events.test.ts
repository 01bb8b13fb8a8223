import { expect, test } from "vitest";
import { contentOf, type Followed, heard, NOTHING_YET, wordsOf } from "./job_events";

test("what a job says is kept in order, and its progress until the next attempt", () => {
  let told: Followed = heard(NOTHING_YET, "assigned", { attempt: 1 }, null);
  told = heard(told, "status", { numerator: 1, denominator: 4 }, 10);
  expect(told.progress).toEqual({ numerator: 1, denominator: 4 });
  told = heard(told, "data", { text: "half" }, 11);
  expect(told.events.map(({ number, kind, at }) => [number, kind, at])).toEqual([
    [1, "assigned", null],
    [2, "data", 11],
  ]);
  told = heard(told, "retry", { reason: "timeout" }, 12);
  expect([told.progress, told.end]).toEqual([null, null]);
  told = heard(told, "completed", { base64: "/w==" }, 13);
  expect(contentOf(told.end)).toEqual({ base64: "/w==" });
});

test("of very many events the last ones are kept", () => {
  let told = NOTHING_YET;
  for (let at = 0; at < 1000; at++) told = heard(told, "data", { text: String(at) }, at);
  expect(told.events.length).toBe(200);
  expect(told.events.at(-1)?.number).toBe(1000);
});

test("events are told in words", () => {
  const words = (kind: Parameters<typeof heard>[1], data: object) => wordsOf({ number: 1, kind, at: null, data });
  expect(words("retry", { reason: "timeout" })).toBe("The attempt did not succeed: timeout. Another one follows");
  expect(words("gap", { missed: null })).toBe("Some events before this are no longer there to be read");
  expect(words("data", { left_out: 70_000 })).toBe("70000 bytes, too many to be told here");
});
