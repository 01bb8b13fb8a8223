/** Curves over time: the history that the API tells, with what the live stream has told since at their ends. */
import type { Schemas } from "./api/client";

export type Told = Schemas["History"];
export type Span = "15m" | "6h" | "30d";
export type Values = (number | null)[];

export const SPANS: Record<Span, { label: string; points: number; seconds: number }> = {
  "15m": { label: "15 minutes", points: 180, seconds: 900 },
  "6h": { label: "6 hours", points: 360, seconds: 6 * 3600 },
  "30d": { label: "30 days", points: 720, seconds: 30 * 86400 },
};

export const COUNTS = ["submitted", "started", "completed", "failed", "retried", "dead"] as const;

/** Of counts the curves tell how many a second; gauges and percentiles are as they come. */
export interface Curves {
  step: number;
  times: number[];
  series: Record<string, Values>;
}

/** What is known at one moment: by series a rate or a gauge. */
export interface Point {
  time: number;
  values: Record<string, number>;
}

/** The curves of a history, carried on with the points that lie behind its end, over as many intervals as before. */
export function curvesOf(told: Told, points: readonly Point[] = []): Curves {
  const { step, times } = told;
  const end = (times.at(-1) ?? 0) + step;
  const tail = times.length ? bucketsOf(points, end, step) : [];
  const dropped = Math.min(tail.length, times.length);
  const series: Record<string, Values> = {};
  for (const [name, values] of Object.entries(told.series)) {
    const isCount = (COUNTS as readonly string[]).includes(name);
    const head = isCount ? values.map((value) => (value === null ? null : value / step)) : values;
    series[name] = [...head.slice(dropped), ...tail.map((bucket) => valueIn(bucket, name, isCount))];
  }
  return { step, series, times: [...times.slice(dropped), ...tail.map((_, at) => end + at * step)] };
}

function bucketsOf(points: readonly Point[], end: number, step: number): Point[][] {
  const buckets: Point[][] = [];
  for (const point of points) {
    if (point.time < end) continue;
    const at = Math.floor((point.time - end) / step);
    while (buckets.length <= at) buckets.push([]);
    buckets[at]?.push(point);
  }
  return buckets;
}

function valueIn(bucket: Point[], name: string, isCount: boolean): number | null {
  const known = bucket.map((point) => point.values[name]).filter((value) => value !== undefined);
  if (!known.length) return null;
  return isCount ? known.reduce((sum, value) => sum + value, 0) / known.length : (known.at(-1) ?? null);
}

/** The last value that is known. */
export function last(values: Values | undefined): number | null {
  return values?.findLast((value) => value !== null) ?? null;
}

/** Columns added up; where the first is not known, neither is the sum. */
export function sum(...columns: (Values | undefined)[]): Values | undefined {
  const [first, ...others] = columns;
  return first?.map((value, at) =>
    others.reduce<number | null>((total, values) => (total === null ? null : total + (values?.[at] ?? 0)), value),
  );
}
