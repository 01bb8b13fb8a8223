import { describe, expect, it } from "vitest";
import { contentOf, heard, pretty, UNSEEN, type Watched, withWhole } from "./watching";

function history(...events: [string, object][]): Watched {
  return events.reduce((known, [event, told], at) => heard(known, event, told, at), UNSEEN);
}

describe("a job that is followed", () => {
  it("waits, runs and ends", () => {
    expect(history().phase).toBe("waiting");
    const running = history(["assigned", { attempt: 1 }], ["status", { numerator: 2, denominator: 5 }]);
    expect(running).toMatchObject({ phase: "running", attempt: 1, progress: { numerator: 2, denominator: 5 } });
    const ended = heard(running, "completed", { text: "done" }, 3);
    expect(ended).toMatchObject({ phase: "ended", end: "completed", result: "done" });
    expect(ended.happenings.map(({ event, text }) => `${event} ${text}`)).toEqual([
      "assigned ",
      "status 2 of 5",
      "completed done",
    ]);
  });
  it("puts data together", () => {
    expect(history(["data", { text: "a\n" }], ["data", { text: "b" }]).data).toBe("a\nb");
  });
  it("waits again after an attempt that did not succeed, and begins anew", () => {
    const again = history(
      ["assigned", { attempt: 1 }],
      ["status", { numerator: 1, denominator: 2 }],
      ["retry", { reason: "fail" }],
    );
    expect(again).toMatchObject({ phase: "waiting" });
    expect(heard(again, "assigned", { attempt: 2 }, 9)).toMatchObject({ phase: "running", attempt: 2, progress: null });
  });
  it("says what was missed", () => {
    expect(history(["gap", { missed: 3 }]).happenings[0]?.text).toBe("3 events are no longer there");
    expect(history(["gap", { missed: null }]).happenings[0]?.text).toBe("what was before is no longer there");
  });
  it("keeps the last events, and counts the others", () => {
    const many = history(
      ...Array.from({ length: 250 }, (_, at): [string, object] => ["warning", { text: String(at) }]),
    );
    expect([many.happenings.length, many.leftOut, many.happenings.at(-1)?.text]).toEqual([200, 50, "249"]);
  });
});

describe("all that a worker has sent", () => {
  const seen = history(["data", { text: "2\n" }], ["completed", { text: "end" }]);
  it("brings the data that came before anybody listened", () => {
    expect(withWhole(seen, "1\n2\nend")).toEqual({ data: "1\n2\n", result: "end" });
  });
  it("is the result for those who may not listen", () => {
    expect(withWhole(UNSEEN, "1\nend")).toEqual({ data: "", result: "1\nend" });
  });
  it("is not waited for", () => expect(withWhole(seen, null)).toEqual({ data: "2\n", result: "end" }));
});

describe("content", () => {
  it("is text, or hexadecimal", () => {
    expect(contentOf({ text: "ü" })).toBe("ü");
    expect(contentOf({ base64: "AP9B" })).toBe(`00000000  ${"00 ff 41".padEnd(48)}  ..A`);
    expect(contentOf({ left_out: 7 })).toBe("(7 bytes, too many to be told here)");
  });
  it("sets JSON in lines", () => {
    expect(pretty('{"a":[1]}')).toBe('{\n  "a": [\n    1\n  ]\n}');
    expect([pretty("{not"), pretty("12")]).toEqual(["{not", "12"]);
  });
});
