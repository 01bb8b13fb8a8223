import { describe, expect, it, test } from "vitest";
import { contentOf, type Followed, heard, type Kind, NOTHING_YET, type Told, withWhole, wordsOf } from "./job_events";

function followed(...events: [Kind, Told][]): Followed {
  return events.reduce((known, [kind, told], at) => heard(known, kind, told, at), NOTHING_YET);
}

describe("a job that is followed", () => {
  it("waits, runs and ends", () => {
    expect(followed().phase).toBe("waiting");
    const running = followed(["assigned", { attempt: 1 }], ["status", { numerator: 2, denominator: 5 }]);
    expect(running).toMatchObject({ phase: "running", attempt: 1, progress: { numerator: 2, denominator: 5 } });
    const ended = heard(running, "completed", { base64: "/w==" }, 3);
    expect(ended).toMatchObject({ phase: "ended", end: { number: 3, kind: "completed", at: 3 } });
    expect(contentOf(ended.end)).toEqual({ base64: "/w==" });
  });
  it("waits again after an attempt that did not succeed, and begins anew", () => {
    const again = followed(
      ["assigned", { attempt: 1 }],
      ["status", { numerator: 1, denominator: 4 }],
      ["data", { text: "half" }],
      ["retry", { reason: "timeout" }],
    );
    expect(again).toMatchObject({ phase: "waiting", progress: null, end: null });
    expect(again.events.map(({ number, kind, at }) => [number, kind, at])).toEqual([
      [1, "assigned", 0],
      [2, "status", 1],
      [3, "data", 2],
      [4, "retry", 3],
    ]);
    expect(heard(again, "assigned", { attempt: 2 }, 9)).toMatchObject({ phase: "running", attempt: 2, progress: null });
  });
  it("tells of status after status the last one", () => {
    const steps = [1, 2, 3].map((numerator): [Kind, Told] => ["status", { numerator, denominator: 4 }]);
    const told = followed(["assigned", { attempt: 1 }], ...steps, ["data", { text: "x" }]);
    expect(told.events.map((event) => `${event.number} ${wordsOf(event)}`)).toEqual([
      "1 Attempt 1 begins",
      "2 3 of 4",
      "3 x",
    ]);
  });
  it("puts data together, so that it can be read", () => {
    expect(followed(["data", { text: "a\n" }], ["data", { text: "b" }]).data).toBe("a\nb");
    expect(followed(["data", { base64: "AP9B" }]).data).toContain("00 ff 41");
    expect(followed(["data", { left_out: 7 }]).data).toBe("(7 bytes, too many to be told here)");
    expect(followed(["data", { text: "a".repeat(200_000) }]).data.length).toBe(100_000);
  });
  it("keeps the last of very many events", () => {
    const told = followed(...Array.from({ length: 1000 }, (_, at): [Kind, Told] => ["warning", { text: String(at) }]));
    expect([told.events.length, told.events.at(-1)?.number]).toEqual([200, 1000]);
  });
});

test("events are told in words", () => {
  const words = (kind: Kind, data: Told) => wordsOf({ number: 1, kind, at: null, data });
  expect(words("retry", { reason: "timeout" })).toBe("The attempt did not succeed: timeout. Another one follows");
  expect(words("gap", { missed: null })).toBe("Some events before this are no longer there to be read");
  expect(words("gap", { missed: 3 })).toBe("3 events before this are no longer there to be read");
  expect(words("data", { left_out: 70_000 })).toBe("70000 bytes, too many to be told here");
  expect(words("data", { base64: "AP9B" })).toBe("3 B");
});

describe("all that a worker has sent", () => {
  const seen = followed(["data", { text: "2\n" }], ["completed", { text: "end" }]);
  it("brings the data that came before anybody listened", () => {
    expect(withWhole(seen, "1\n2\nend")).toEqual({ data: "1\n2\n", result: "end" });
  });
  it("is the result for those who may not listen", () => {
    expect(withWhole(NOTHING_YET, "1\nend")).toEqual({ data: "", result: "1\nend" });
  });
  it("is not waited for", () => expect(withWhole(seen, null)).toEqual({ data: "2\n", result: "end" }));
});
