/** What a connection is doing, and how many jobs a second it has done lately. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Schemas } from "./api/client";
import type { State } from "./components/basics";

export type Connection = Schemas["Connection"];

const QUIET = 60; // seconds without a word after which a worker that neither runs nor sleeps is no usual one
const SMOOTH = 8; // seconds over which rates are smoothed

export interface Doing {
  word: string;
  state: State;
  /** The same in a sentence. */
  meaning: string;
}

/** What it does now, by what it can do, what it runs, whether it sleeps, and when it was heard last. */
export function doingOf({ function_count, running, sleeping, silent }: Connection): Doing {
  if (running.length) return { word: "busy", state: "running", meaning: "It runs a job" };
  if (!function_count) return { word: "client", state: "paused", meaning: "It can do nothing: it submits or asks" };
  if (sleeping) return { word: "idle", state: "completed", meaning: "It sleeps until there is a job for it" };
  if (silent < QUIET) return { word: "awake", state: "completed", meaning: "It asks for jobs, or is about to" };
  return {
    word: "quiet",
    state: "retried",
    meaning:
      "It neither runs a job nor sleeps, and has not asked for long: it may hang, or be busy with its own things",
  };
}

/** What it is called: its own name, else that it has none. */
export const nameOf = ({ id }: Pick<Connection, "id">): string | null => (id === "-" ? null : id);

/** Whether it can be disconnected: the job server's own connections can't. */
export const canGo = ({ fd }: Pick<Connection, "fd">): boolean => fd >= 0;

interface Seen {
  at: number;
  done: number;
  rate: number | null;
}

/** Jobs a second, by a connection's number, from what its count gains from one look to the next. */
export class DoneRates {
  private seen = new Map<number, Seen>();

  /** Those that are not among these are forgotten. */
  look(connections: readonly Pick<Connection, "number" | "jobs_done">[], now: number): void {
    const fresh = new Map<number, Seen>();
    for (const { number, jobs_done: done } of connections) fresh.set(number, next(this.seen.get(number), done, now));
    this.seen = fresh;
  }

  /** null: it was seen once only. */
  of(number: number): number | null {
    return this.seen.get(number)?.rate ?? null;
  }
}

function next(before: Seen | undefined, done: number, now: number): Seen {
  if (!before) return { at: now, done, rate: null };
  const seconds = now - before.at;
  if (seconds < 0.5) return before;
  const fresh = (done - before.done) / seconds;
  const weight = 1 - Math.exp(-seconds / SMOOTH);
  return { at: now, done, rate: before.rate === null ? fresh : before.rate + weight * (fresh - before.rate) };
}

/** The same for what is on the screen. */
export function useDoneRates(connections: readonly Connection[] | undefined): DoneRates {
  const rates = useRef(new DoneRates());
  const [, redraw] = useState(0);
  useEffect(() => {
    if (!connections) return;
    rates.current.look(connections, Date.now() / 1000);
    redraw((count) => count + 1);
  }, [connections]);
  return rates.current;
}
