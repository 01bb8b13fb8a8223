import { expect, test } from "vitest";
import { ageOf, countOf, filtersOf, inWords, JobSearch, type Row, shareOf, suits, workerName } from "./jobs";

test("an age is read as people write it", () => {
  expect(["90", "5m", "2 h", "1.5d", "30 sec", "250ms"].map(ageOf)).toEqual([90, 300, 7200, 129600, 30, 0.25]);
  expect(["", "m", "5 weeks", "-1", "1e3"].map(ageOf)).toEqual([null, null, null, null, null]);
});

test("a count is a whole number", () => {
  expect(["0", " 12 ", "-1", "1.5", "x"].map(countOf)).toEqual([0, 12, null, null, null]);
});

test("the filters of a query are those that can be meant", () => {
  const query = new URLSearchParams(
    "state=running&older_than=5m&attempt=x&priority=urgent&function=a%20b&order=oldest",
  );
  expect(filtersOf(query)).toEqual({ state: "running", older_than: 300, function: "a b" });
});

test("what is meant is told in words", () => {
  expect(inWords({}, String)).toBe("of all functions, in any state");
  expect(inWords({ state: "dead", function: "f", older_than: 60, attempt: 2 }, (seconds) => `${seconds} s`)).toBe(
    "in the state dead, of the function f, older than 60 s, with at least 2 failed attempts",
  );
});

test("what can be done to a job hangs on its state", () => {
  const can = (state: string) => (["cancel", "retry", "priority"] as const).filter((action) => suits(action, state));
  expect(can("queued")).toEqual(["cancel", "priority"]);
  expect(can("delayed")).toEqual(["cancel", "retry", "priority"]);
  expect(can("running")).toEqual(["cancel"]);
  expect(can("dead")).toEqual(["retry"]);
  expect(can("ended")).toEqual([]);
});

const row = (handle: string) => ({ handle }) as Row;
const never = new AbortController().signal;

test("a search goes on until a page is full or nothing is left", async () => {
  const pages = [
    { jobs: [row("a")], next: 7 },
    { jobs: [], next: 9 },
    { jobs: [row("b")], next: null },
  ];
  const asked: object[] = [];
  const search = new JobSearch({ order: "newest", after: 3, state: "dead" }, async (query) => {
    asked.push(query);
    return pages.shift() ?? { jobs: [], next: null };
  });
  expect(await search.find(never)).toEqual({ jobs: [row("a"), row("b")], next: null });
  expect(asked).toEqual([
    { order: "newest", state: "dead", after: 3, limit: 50 },
    { order: "newest", state: "dead", after: 7, limit: 49 },
    { order: "newest", state: "dead", after: 9, limit: 49 },
  ]);
});

test("a search that finds nothing ends, and tells where to go on", async () => {
  let count = 0;
  const search = new JobSearch({ order: "oldest", after: 0 }, async () => ({ jobs: [], next: ++count }));
  expect(await search.find(never)).toEqual({ jobs: [], next: 20 });
});

test("a search that took long is not made again soon, nor one that is held", async () => {
  let clock = 0;
  let count = 0;
  const search = new JobSearch({ order: "oldest", after: 0 }, async () => {
    clock += 1000;
    count += 1;
    return { jobs: [row(String(count))], next: null };
  });
  const find = async () => (await search.find(never, () => clock)).jobs[0]?.handle;
  expect(await find()).toBe("1");
  clock += 9000;
  expect(await find()).toBe("1");
  clock += 1000;
  expect(await find()).toBe("2");
  clock += 60_000;
  search.isHeld = true;
  expect(await find()).toBe("2");
  search.forget();
  expect(await find()).toBe("3");
  search.forget();
  expect(await find()).toBe("4");
});

test("progress is a share of one, and a worker has a name", () => {
  expect(shareOf({ numerator: 1, denominator: 4 })).toBe(0.25);
  expect(shareOf({ numerator: 9, denominator: 4 })).toBe(1);
  expect(shareOf({ numerator: 1, denominator: 0 })).toBe(null);
  expect(shareOf(null)).toBe(null);
  expect([workerName("mailer 10.0.0.1"), workerName("- 10.0.0.1"), workerName(null)]).toEqual([
    "mailer",
    "10.0.0.1",
    "–",
  ]);
});
