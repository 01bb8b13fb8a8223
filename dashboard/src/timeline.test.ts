import { expect, test } from "vitest";
import { type Job, timelineOf } from "./timeline";

const job = (known: Partial<Job>): Job => ({
  handle: "H:here:1",
  state: "queued",
  function: "f",
  unique: "",
  priority: "normal",
  background: true,
  size: 1,
  created: 100,
  due: null,
  attempts: 0,
  max_attempts: null,
  clients: 0,
  stored: null,
  stored_at: null,
  worker: null,
  connection: null,
  running_since: null,
  queued: 100,
  started: null,
  ended: null,
  progress: null,
  died: null,
  reason: null,
  text: null,
  outcome: null,
  result_size: null,
  kept_until: null,
  why: null,
  history: [],
  ...known,
});
const failed = (number: number, started: number, ended: number) => ({
  number,
  started,
  ended,
  reason: "fail",
  worker: "w",
  text: "",
});
const drawn = (known: Partial<Job>, now = 110) =>
  timelineOf(job(known), now)?.segments.map(({ part, from, to }) => [part, from, to]);

test("a job that waits has waited since it came into its queue", () => {
  expect(drawn({})).toEqual([["wait", 100, 110]]);
  expect(drawn({ queued: 104 })).toEqual([
    ["pause", 100, 104],
    ["wait", 104, 110],
  ]);
  expect(drawn({ state: "delayed", queued: null, due: 200 })).toEqual([["pause", 100, 110]]);
});

test("a job that runs has waited and runs", () => {
  const line = timelineOf(job({ state: "running", started: 103, worker: "w h" }), 110);
  expect(line?.segments).toEqual([
    { part: "wait", from: 100, to: 103 },
    { part: "run", from: 103, to: 110, number: 1 },
  ]);
  expect(line?.sums).toEqual({ pause: 0, between: 0, wait: 3, run: 7, failed: 0 });
  expect(line?.isOpen).toBe(true);
});

test("attempts before stand in their places, with the pause before the next one", () => {
  const known = { state: "running", attempts: 1, history: [failed(1, 101, 102)], queued: 105, started: 106 };
  expect(drawn(known)).toEqual([
    ["wait", 100, 101],
    ["failed", 101, 102],
    ["pause", 102, 105],
    ["wait", 105, 106],
    ["run", 106, 110],
  ]);
});

test("what was between attempts long ago is not made up", () => {
  const history = [failed(1, 101, 102), failed(2, 104, 105)];
  expect(drawn({ state: "dead", attempts: 2, history, queued: 104, started: 104, died: 105 })).toEqual([
    ["wait", 100, 101],
    ["failed", 101, 102],
    ["pause", 102, 104],
    ["failed", 104, 105],
  ]);
  expect(drawn({ state: "running", attempts: 2, history, queued: 107, started: 107 })).toEqual([
    ["wait", 100, 101],
    ["failed", 101, 102],
    ["between", 102, 104],
    ["failed", 104, 105],
    ["pause", 105, 107],
    ["run", 107, 110],
  ]);
});

test("one that has ended ends there, whatever the time is", () => {
  const known = { state: "ended", outcome: "completed", started: 103, ended: 105 };
  expect(drawn(known, 999)).toEqual([
    ["wait", 100, 103],
    ["run", 103, 105],
  ]);
  expect(timelineOf(job(known), 999)?.steps.map(({ name }) => name)).toEqual([
    "Submitted",
    "Queued",
    "Assigned",
    "Completed",
  ]);
});

test("a last attempt that is told twice is drawn once", () => {
  const known = { outcome: "failed", history: [failed(1, 103, 105)], started: 103.001, ended: 105, attempts: 1 };
  expect(drawn({ ...known, state: "ended" }, 999)).toEqual([
    ["wait", 100, 103],
    ["failed", 103, 105],
  ]);
  expect(drawn({ ...known, state: "dead", outcome: null, ended: null, died: 105 }, 999)).toEqual([
    ["wait", 100, 103],
    ["failed", 103, 105],
  ]);
});

test("one that was cancelled has only waited", () => {
  expect(drawn({ state: "ended", outcome: "cancelled", ended: 104 }, 999)).toEqual([["wait", 100, 104]]);
});

test("a run of no length is there, and times that contradict each other are in order", () => {
  expect(drawn({ state: "ended", outcome: "completed", started: 100, ended: 100 })).toEqual([["run", 100, 100]]);
  expect(drawn({ state: "running", started: 120 }, 110)).toEqual([
    ["wait", 100, 120],
    ["run", 120, 120],
  ]);
});

test("without any time there is no line", () => {
  expect(timelineOf(job({ created: null, queued: null, state: "ended" }), 110)).toBe(null);
});

const stepsOf = (known: Partial<Job>) => timelineOf(job(known), 110)?.steps.map(({ name, at }) => [name, at]);

test("that it was stored is a step at its time, between those before and those after", () => {
  const begun = { state: "running", queued: 100, started: 103 };
  const stored = (stored_at: number) => stepsOf({ ...begun, stored: true, stored_at })?.map(([name]) => name);
  expect(stored(100)).toEqual(["Submitted", "Stored", "Queued", "Assigned"]);
  expect(stored(101)).toEqual(["Submitted", "Queued", "Stored", "Assigned"]);
  expect(stored(104)).toEqual(["Submitted", "Queued", "Assigned", "Stored"]);
  expect(stepsOf({ state: "delayed", queued: null, due: 200, stored: true, stored_at: 100.002 })).toEqual([
    ["Submitted", 100],
    ["Stored", 100.002],
    ["Due", 200],
  ]);
  expect(stepsOf({ state: "ended", outcome: "completed", started: 103, ended: 105, stored_at: 102 })).toEqual([
    ["Submitted", 100],
    ["Queued", 100],
    ["Stored", 102],
    ["Assigned", 103],
    ["Completed", 105],
  ]);
});

test("where it is not known when it was stored, or it is not, the step has no time", () => {
  expect(stepsOf({ stored: true })).toEqual([
    ["Submitted", 100],
    ["Stored", null],
    ["Queued", 100],
  ]);
  expect(stepsOf({ stored: false })?.map(([name]) => name)).toEqual(["Submitted", "Not stored", "Queued"]);
});
