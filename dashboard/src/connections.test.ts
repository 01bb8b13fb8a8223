import { describe, expect, it } from "vitest";
import { type Connection, canGo, DoneRates, doingOf, nameOf } from "./connections";

const IDLE: Connection = {
  number: 3,
  id: "ada",
  host: "127.0.0.1",
  fd: 9,
  functions: ["mail"],
  function_count: 1,
  running: [],
  sleeping: true,
  since: 1,
  silent: 500,
  jobs_done: 0,
};

describe("what a connection does", () => {
  it.each([
    ["busy", { running: ["H:here:1"], sleeping: false }],
    ["idle", {}],
    ["awake", { sleeping: false, silent: 59 }],
    ["quiet", { sleeping: false, silent: 60 }],
    ["client", { functions: [], function_count: 0, sleeping: false }],
    ["client", { functions: [], function_count: 0 }],
    ["busy", { functions: [], function_count: 0, running: ["H:here:1"] }],
  ])("is %s where it is so: %j", (word, beside) => {
    expect(doingOf({ ...IDLE, ...beside }).word).toBe(word);
  });
  it("has a name where it has given one", () => {
    expect([nameOf(IDLE), nameOf({ id: "-" })]).toEqual(["ada", null]);
  });
  it("may be ended unless it is the job server's own", () => {
    expect([canGo(IDLE), canGo({ fd: -1 })]).toEqual([true, false]);
  });
});

describe("jobs a second", () => {
  it("are not known before the second look", () => {
    const rates = new DoneRates();
    rates.look([{ number: 1, jobs_done: 500 }], 10);
    expect(rates.of(1)).toBeNull();
    rates.look([{ number: 1, jobs_done: 520 }], 12);
    expect(rates.of(1)).toBe(10);
    expect(rates.of(2)).toBeNull();
  });
  it("come close to what holds now", () => {
    const rates = new DoneRates();
    rates.look([{ number: 1, jobs_done: 0 }], 0);
    rates.look([{ number: 1, jobs_done: 20 }], 2);
    rates.look([{ number: 1, jobs_done: 20 }], 62);
    expect(rates.of(1)).toBeCloseTo(0, 1);
  });
  it("are not of two looks at once", () => {
    const rates = new DoneRates();
    rates.look([{ number: 1, jobs_done: 0 }], 0);
    rates.look([{ number: 1, jobs_done: 1 }], 0.1);
    expect(rates.of(1)).toBeNull();
    rates.look([{ number: 1, jobs_done: 2 }], 2);
    expect(rates.of(1)).toBe(1);
  });
  it("are forgotten with who has gone", () => {
    const rates = new DoneRates();
    rates.look([{ number: 1, jobs_done: 0 }], 0);
    rates.look([{ number: 1, jobs_done: 4 }], 2);
    rates.look([], 4);
    expect(rates.of(1)).toBeNull();
  });
});
