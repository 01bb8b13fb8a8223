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
const AT_ONCE = 3;

interface Known extends Pace {
  asked: number;
  seen: { at: number; submitted: number; ended: number } | null;
}

/** The pace of each function on the screen, by name. */
export function usePaces(rows: readonly Row[] | undefined): ReadonlyMap<string, Pace> {
  const known = useRef(new Map<string, Known>());
  const [, redraw] = useState(0);
  const names = rows?.map((row) => row.name).join("\n") ?? "";

  useEffect(() => {
    const now = Date.now() / 1000;
    for (const row of rows ?? []) look(entryOf(known.current, row.name), row, now);
    redraw((count) => count + 1);
  }, [rows]);

  useEffect(() => {
    const abort = new AbortController();
    const wanted = names ? names.split("\n") : [];
    const ask = async () => {
      for (let name = wanted.shift(); name !== undefined && !abort.signal.aborted; name = wanted.shift()) {
        const entry = entryOf(known.current, name);
        if (Date.now() - entry.asked < FRESH) continue;
        entry.asked = Date.now();
        try {
          const query = { function: name, points: POINTS, series: ["submitted,completed,failed"] };
          const { step, series } = await get("/api/v1/history", { query, signal: abort.signal });
          const failed = series["failed"] ?? [];
          entry.curve = (series["completed"] ?? []).map((value, at) =>
            value === null ? null : (value + (failed[at] ?? 0)) / step,
          );
          entry.out ??= entry.curve.at(-1) ?? null;
          entry.into ??= (series["submitted"]?.at(-1) ?? 0) / step;
          redraw((count) => count + 1);
        } catch (error) {
          if (!(error instanceof Problem)) return;
        }
      }
    };
    const start = () => {
      for (let at = 0; at < AT_ONCE; at++) void ask();
    };
    start();
    const timer = setInterval(() => {
      if (document.hidden) return;
      wanted.push(...(names ? names.split("\n") : []));
      start();
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
