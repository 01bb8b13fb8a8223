/** How fast functions go: first by their history, then by what their counters gain from one look to the next. */
import { useEffect, useRef, useState } from "preact/hooks";
import { get, Problem, type Schemas } from "./api/client";
import type { Values } from "./history";

type Row = Schemas["FunctionRow"];

export interface Pace {
  /** Jobs a second; null: not known yet. */
  into: number | null;
  out: number | null;
  /** Jobs out over the last 15 minutes. */
  curve: Values;
}

const POINTS = 45;
const FRESH = 60_000; // milliseconds for which a curve holds
const SMOOTH = 8; // seconds over which rates are smoothed
const AT_ONCE = 50; // functions in one question
const LONGEST = 4000; // letters of their names in a URL, since what is in between may take no long ones

interface Known extends Pace {
  asked: number;
  seen: { at: number; submitted: number; ended: number } | null;
}

/** The pace of each function on the screen, by name. */
export function usePaces(rows: readonly Row[] | undefined): ReadonlyMap<string, Pace> {
  const known = useRef(new Map<string, Known>());
  const [, redraw] = useState(0);
  const names = JSON.stringify(rows?.map((row) => row.name).sort() ?? []);

  useEffect(() => {
    const now = Date.now() / 1000;
    for (const row of rows ?? []) look(entryOf(known.current, row.name), row, now);
    redraw((count) => count + 1);
  }, [rows]);

  useEffect(() => {
    const abort = new AbortController();
    const ask = async () => {
      const isOld = (name: string) => Date.now() - entryOf(known.current, name).asked >= FRESH;
      try {
        for (const part of partsOf((JSON.parse(names) as string[]).filter(isOld))) {
          const query = { function: part, points: POINTS, series: ["submitted,completed,failed"] };
          const { step, functions } = await get("/api/v1/history/functions", { query, signal: abort.signal });
          for (const name of part) entryOf(known.current, name).asked = Date.now();
          for (const { function: name, series } of functions) learn(entryOf(known.current, name), series, step);
          redraw((count) => count + 1);
        }
      } catch (error) {
        if (!(error instanceof Problem) && !abort.signal.aborted) throw error;
      }
    };
    void ask();
    const timer = setInterval(() => {
      if (!document.hidden) void ask();
    }, FRESH);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [names]);

  return known.current;
}

function entryOf(known: Map<string, Known>, name: string): Known {
  let entry = known.get(name);
  if (!entry) {
    entry = { into: null, out: null, curve: [], asked: 0, seen: null };
    known.set(name, entry);
  }
  return entry;
}

/** Names as they are asked for: so many at once, in a URL that is not too long. */
export function partsOf(names: readonly string[]): string[][] {
  const parts: string[][] = [];
  let length = LONGEST;
  for (const name of names) {
    const more = encodeURIComponent(name).length + "&function=".length;
    if (length + more > LONGEST || parts.at(-1)?.length === AT_ONCE) {
      parts.push([]);
      length = 0;
    }
    parts.at(-1)?.push(name);
    length += more;
  }
  return parts;
}

function learn(entry: Known, series: Record<string, Values>, step: number): void {
  const failed = series["failed"] ?? [];
  entry.curve = (series["completed"] ?? []).map((value, at) =>
    value === null ? null : (value + (failed[at] ?? 0)) / step,
  );
  entry.out ??= entry.curve.at(-1) ?? null;
  entry.into ??= (series["submitted"]?.at(-1) ?? 0) / step;
}

function look(entry: Known, { counters }: Row, now: number): void {
  const seen = {
    at: now,
    submitted: counters["submitted"] ?? 0,
    ended: (counters["completed"] ?? 0) + (counters["failed"] ?? 0),
  };
  const before = entry.seen;
  entry.seen = seen;
  if (!before || seen.submitted < before.submitted || now - before.at < 0.5) return;
  const seconds = now - before.at;
  const weight = 1 - Math.exp(-seconds / SMOOTH);
  const blend = (old: number | null, fresh: number) => (old === null ? fresh : old + weight * (fresh - old));
  entry.into = blend(entry.into, (seen.submitted - before.submitted) / seconds);
  entry.out = blend(entry.out, (seen.ended - before.ended) / seconds);
}

/** Seconds until nothing waits any more, as it goes now; Infinity: it does not get less; null: not known. */
export function timeToDrain(waiting: number, pace: Pace | undefined): number | null {
  if (!waiting) return 0;
  if (!pace || pace.out === null || pace.into === null) return null;
  const gain = pace.out - pace.into;
  return gain > 0.01 ? waiting / gain : Number.POSITIVE_INFINITY;
}
