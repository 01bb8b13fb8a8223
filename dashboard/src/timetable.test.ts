import { describe, expect, it } from "vitest";
import { fits, inWords, offsetOf, partsWithRuns, readCron } from "./timetable";

describe("words", () => {
  it.each([
    [{ every: "30s" }, "every 30 seconds"],
    [{ every: "1h" }, "every hour"],
    [{ every: "100ms" }, "every 100 ms"],
    [{ every: "1h30m" }, "every 1 h 30 m"],
    [{ cron: "* * * * *" }, "every minute"],
    [{ cron: "*/15 * * * *" }, "every 15 minutes"],
    [{ cron: "*/7 * * * *" }, null],
    [{ cron: "0 * * * *" }, "every hour"],
    [{ cron: "5 * * * *" }, "every hour at :05"],
    [{ cron: "0 */6 * * *" }, "every 6 hours"],
    [{ cron: "@daily" }, "every day at 00:00"],
    [{ cron: "30 2 * * *" }, "every day at 02:30"],
    [{ cron: "0 8,12,18 * * *" }, "every day at 08:00, 12:00 and 18:00"],
    [{ cron: "0 9 * * 1-5" }, "Monday to Friday at 09:00"],
    [{ cron: "0 9 * * MON,7" }, "every Monday and Sunday at 09:00"],
    [{ cron: "0 3 1 * *" }, "on day 1 of each month at 03:00"],
    [{ cron: "@yearly" }, "every 1 Jan at 00:00"],
    [{ cron: "0 0 13 * 5" }, null],
    [{ cron: "0-10 3 * * *" }, null],
    [{ cron: "what" }, null],
  ])("%j is %j", (keys, words) => {
    expect(inWords(keys)).toBe(words);
  });
});

describe("cron", () => {
  const runs = (expression: string, text: string) => {
    const cron = readCron(expression);
    return cron && fits(cron, new Date(text));
  };
  it.each([
    ["*/10 1-3 * * *", "2026-11-28T03:50Z", true],
    ["*/10 1-3 * * *", "2026-11-28T03:55Z", false],
    ["0 0 * nov sat", "2026-11-28T00:00Z", true],
    ["0 0 * * 7", "2026-11-29T00:00Z", true],
    ["0 0 13 * 5", "2026-11-13T00:00Z", true],
    ["0 0 13 * 5", "2026-11-27T00:00Z", true],
    ["0 0 13 * 5", "2026-11-28T00:00Z", false],
    ["0 0 */2 * 5", "2026-11-27T00:00Z", true],
    ["0 0 */2 * 5", "2026-11-20T00:00Z", false],
  ])("%s at %s: %s", (expression, text, isRun) => {
    expect(runs(expression, text)).toBe(isRun);
  });
  it("knows what is none", () => expect(readCron("* * *")).toBeNull());
});

describe("time line", () => {
  const from = Date.parse("2026-11-28T12:00:00Z") / 1000;
  const day = (told: Parameters<typeof partsWithRuns>[0]) =>
    partsWithRuns(told, from, from + 86400, 24)
      .map((isRun) => (isRun ? "x" : "."))
      .join("");
  it("shows the runs that are known, and goes on as the expression says, on the clock of its zone", () => {
    const next_runs = ["2026-11-28T14:30:00+01:00", "2026-11-28T20:30:00+01:00"];
    expect(day({ next_runs, keys: { cron: "30 2,8,14,20 * * *" } })).toBe(".x.....x.....x.....x....");
  });
  it("goes on by the interval", () => {
    const next_runs = ["2026-11-28T13:00:00+00:00", "2026-11-28T18:00:00+00:00"];
    expect(day({ next_runs, keys: { every: "5h" } })).toBe(".x....x....x....x....x..");
  });
  it("is full where runs come often", () => {
    const next_runs = ["2026-11-28T12:00:00+00:00", "2026-11-28T12:00:00.100+00:00"];
    expect(day({ next_runs, keys: { every: "100ms" } })).toBe("x".repeat(24));
  });
  it("shows nothing while a schedule is paused, nor what is later", () => {
    expect(day({ next_runs: [], keys: { cron: "* * * * *" } })).toBe(".".repeat(24));
    expect(day({ next_runs: ["2026-12-28T12:00:00Z"], keys: { cron: "0 12 28 * *" } })).toBe(".".repeat(24));
  });
  it("reads offsets", () => {
    expect(["2026-01-01T00:00:00+05:30", "2026-01-01T00:00:00-03:00", "2026-01-01T00:00:00Z"].map(offsetOf)).toEqual([
      19800, -10800, 0,
    ]);
  });
});
