/** Hooks that fetch what a screen shows, keep it fresh, and keep showing the old while the new is on its way. */
import { effect, type Signal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { get, Problem } from "./api/client";
import { type Curves, curvesOf, type Point, SPANS, type Span, type Told } from "./history";
import { overview, recent } from "./live";

const AT_MOST_EVERY = 2000; // milliseconds between two fetches of a list
const AT_LEAST_EVERY = 10_000; // since ages grow where nothing else changes

export interface Fetched<T> {
  /** The newest answer to this question; undefined: there is none yet. Null, where it may be, is asked for less often. */
  data: T | undefined;
  problem: Problem | null;
  /** Ask again now, as after an action. */
  again: () => void;
}

/**
 * What `ask` answers, fetched anew when `question` changes, and as the job server's revision does: at most once in so
 * many milliseconds.
 */
export function useFetched<T>(
  question: string,
  ask: (signal: AbortSignal) => Promise<T>,
  pause: number = AT_MOST_EVERY,
): Fetched<T> {
  // biome-ignore lint/correctness/useExhaustiveDependencies: the question stands for what `ask` reads
  const fetching = useMemo(() => new Fetching(ask, pause), [question]);
  useEffect(() => fetching.run(), [fetching]);
  const { data, problem } = fetching.state.value;
  return { data, problem, again: fetching.again };
}

class Fetching<T> {
  readonly state: Signal<{ data: T | undefined; problem: Problem | null }> = signal({ data: undefined, problem: null });
  private readonly ask: (signal: AbortSignal) => Promise<T>;
  private readonly pause: number;
  private abort = new AbortController();
  private isAsking = false;
  private wantsMore = false;
  private asked = 0;
  private revision = -1;

  constructor(ask: (signal: AbortSignal) => Promise<T>, pause: number) {
    this.ask = ask;
    this.pause = pause;
  }

  readonly again = (): void => {
    if (this.isAsking) this.wantsMore = true;
    else void this.fetch();
  };

  run(): () => void {
    this.abort = new AbortController();
    this.again();
    const stop = effect(() => {
      const told = overview.value;
      if (!told || this.isAsking) return;
      const since = Date.now() - this.asked;
      const { data, problem } = this.state.peek();
      const isMissing = data === null || problem?.status === 404;
      const pause = isMissing || told.revision === this.revision ? Math.max(this.pause, AT_LEAST_EVERY) : this.pause;
      if (since >= pause) this.again();
    });
    return () => {
      stop();
      this.abort.abort();
    };
  }

  private async fetch(): Promise<void> {
    const { signal } = this.abort;
    this.isAsking = true;
    this.wantsMore = false;
    this.asked = Date.now();
    this.revision = overview.peek()?.revision ?? -1;
    try {
      const data = await this.ask(signal);
      if (!signal.aborted) this.state.value = { data, problem: null };
    } catch (error) {
      if (signal.aborted) return;
      const problem = error instanceof Problem ? error : new Problem(0, "fault", String(error));
      this.state.value = { data: this.state.peek().data, problem };
    } finally {
      this.isAsking = false;
      if (this.wantsMore && !signal.aborted) void this.fetch();
    }
  }
}

/** The curves of a span, of one function or of all together; those of all go on with each live event. */
export function useCurves(span: Span, name?: string): { curves: Curves | undefined; problem: Problem | null } {
  const { points } = SPANS[span];
  // biome-ignore lint/correctness/useExhaustiveDependencies: another function or span has other curves
  const state = useMemo(
    () => ({ told: signal<Told | undefined>(undefined), problem: signal<Problem | null>(null) }),
    [span, name],
  );
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const ask = async () => {
      try {
        const query = { span, points, function: name };
        state.told.value = await get("/api/v1/history", { query, signal: abort.signal });
        state.problem.value = null;
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error instanceof Problem) state.problem.value = error;
      }
      const step = state.told.peek()?.step ?? 0;
      const pause = name === undefined ? Math.max(step, 10) : Math.max(step, 5);
      if (!abort.signal.aborted) timer = window.setTimeout(ask, 1000 * Math.min(pause, 300));
    };
    const change = () => {
      clearTimeout(timer);
      if (!document.hidden) void ask();
    };
    document.addEventListener("visibilitychange", change);
    change();
    return () => {
      document.removeEventListener("visibilitychange", change);
      clearTimeout(timer);
      abort.abort();
    };
  }, [span, name, points, state]);
  const told = state.told.value;
  const live = name === undefined ? recent.value : NONE;
  const curves = useMemo(() => told && curvesOf(told, live.map(pointOf)), [told, live]);
  return { curves, problem: state.problem.value };
}

const NONE: typeof recent.value = [];

function pointOf(told: (typeof recent.value)[number]): Point {
  const { rates, waiting, running, workers, oldest_waiting: oldest, time } = told;
  return { time, values: { ...rates, waiting, running, workers: workers.able, busy: workers.busy, oldest } };
}
