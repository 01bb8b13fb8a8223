/** What happens to one job while it happens: its stream of events, open while somebody looks and the job is there. */
import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Problem, urlOf } from "./api/client";
import { bytesOf, type Content, readable } from "./content";
import { bytes, NOTHING } from "./format";
import { statusOf } from "./jobs";

const ENDS = ["completed", "failed", "cancelled", "dead", "dropped", "abandoned", "refused", "moved"] as const;
const KINDS = ["assigned", "data", "warning", "status", "retry", "gap", ...ENDS] as const;
export type Kind = (typeof KINDS)[number];

export interface Event {
  /** Counted from 1, so that each can be told from the others. */
  number: number;
  kind: Kind;
  /** When it came here, in Unix seconds; null: it was told when the stream began, and had happened before. */
  at: number | null;
  data: Told;
}

/** What an event carries, each kind its own part of it. */
export interface Told {
  text?: string;
  base64?: string;
  left_out?: number;
  attempt?: number;
  numerator?: number;
  denominator?: number;
  reason?: string;
  missed?: number | null;
}

export interface Followed {
  /** `gone`: nothing is told of the job any more. */
  phase: "waiting" | "running" | "ended" | "gone";
  attempt: number;
  progress: { numerator: number; denominator: number } | null;
  /** What the worker has sent before the result, to be read; of very much the end. */
  data: string;
  /** The newest last, and of very many the last ones; of status that follows status the last one. */
  events: readonly Event[];
  /** The last event, if it has come. */
  end: Event | null;
}

const KEPT = 200;
const KEPT_DATA = 100_000; // characters
const OLD = 400; // milliseconds from the beginning of a stream, in which comes what had happened before

export const NOTHING_YET: Followed = {
  phase: "waiting",
  attempt: 0,
  progress: null,
  data: "",
  events: [],
  end: null,
};

/** What is known after one more event. */
export function heard(before: Followed, kind: Kind, data: Told, at: number | null): Followed {
  const last = before.events.at(-1);
  const isOnly = kind === "status" && last?.kind === "status";
  const event = { number: isOnly ? last.number : (last?.number ?? 0) + 1, kind, at, data };
  const events = [...(isOnly ? before.events.slice(0, -1) : before.events.slice(1 - KEPT)), event];
  const after: Followed = { ...before, events };
  if (kind === "assigned") return { ...after, phase: "running", attempt: data.attempt ?? 1, progress: null };
  if (kind === "retry") return { ...after, phase: "waiting", progress: null };
  if (kind === "data") {
    const content = contentOf(event);
    const text = content ? readable(content) : `(${wordsOf(event)})`;
    return { ...after, phase: "running", data: (before.data + text).slice(-KEPT_DATA) };
  }
  if (kind === "status") {
    const { numerator = 0, denominator = 0 } = data;
    return { ...after, phase: "running", progress: { numerator, denominator } };
  }
  return (ENDS as readonly string[]).includes(kind) ? { ...after, phase: "ended", end: event } : after;
}

/** An event in words; what it carries beside them is shown as it is. */
export function wordsOf({ kind, data }: Event): string {
  if (kind === "assigned") return `Attempt ${data.attempt ?? NOTHING} begins`;
  if (kind === "status") return `${data.numerator ?? 0} of ${data.denominator ?? 0}`;
  if (kind === "retry") return `The attempt did not succeed: ${data.reason ?? NOTHING}. Another one follows`;
  if (kind === "moved") return "It goes on at another job server of the fleet";
  if (kind === "gap") return `${data.missed ?? "Some"} events before this are no longer there to be read`;
  if (data.left_out !== undefined) return `${data.left_out} bytes, too many to be told here`;
  if (data.base64 !== undefined) return bytes(bytesOf({ base64: data.base64 }).length);
  return data.text ?? "";
}

/** The bytes of an event, if it carries any. */
export function contentOf(event: Event | null): Content | null {
  if (event?.data.text !== undefined) return { text: event.data.text };
  return event?.data.base64 === undefined ? null : { base64: event.data.base64 };
}

/** The data and the result, where `whole` is both together: those who follow may have come after the first data. */
export function withWhole({ data, end }: Followed, whole: string | null): { data: string; result: string | null } {
  const told = contentOf(end);
  const result = end && (told ? readable(told) : wordsOf(end));
  if (whole === null) return { data, result };
  if (result === null) return { data, result: whole };
  return whole.endsWith(result) ? { data: whole.slice(0, whole.length - result.length), result } : { data, result };
}

/** Follow a job, the same as long as this is drawn; `changed` is called when something has come that its state depends on. */
export function useEvents(handle: string, isThere: boolean, changed: () => void = () => {}): Followed {
  const state = useMemo(() => signal(NOTHING_YET), []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what `changed` does is the same for one job
  useEffect(() => {
    if (!isThere) return;
    let abort = new AbortController();
    let last = "";
    const close = () => abort.abort();
    const gone = () => {
      if (!state.peek().end) state.value = { ...state.peek(), phase: "gone" };
    };
    const open = async ({ signal: stop }: AbortController) => {
      try {
        const { events } = await statusOf(handle, stop); // a refused stream would be an error of the browser's console
        if (!events) return gone();
      } catch (error) {
        if (!(error instanceof Problem) || stop.aborted) return;
      }
      const stream = new EventSource(urlOf("/api/v1/jobs/{handle}/events", { handle }, { last_event_id: last }));
      stop.addEventListener("abort", () => stream.close());
      let began = Number.POSITIVE_INFINITY;
      stream.addEventListener("open", () => {
        began = Date.now();
      });
      stream.addEventListener("error", () => {
        if (stream.readyState === EventSource.CLOSED) gone();
      });
      for (const kind of KINDS) {
        stream.addEventListener(kind, (event) => {
          const now = Date.now();
          last = event.lastEventId || last;
          state.value = heard(state.value, kind, JSON.parse(event.data), now - began < OLD ? null : now / 1000);
          if (state.value.end) close();
          if (kind !== "data" && kind !== "warning" && kind !== "status") changed();
        });
      }
    };
    const change = () => {
      close();
      if (document.hidden || state.peek().end) return;
      abort = new AbortController();
      void open(abort);
    };
    document.addEventListener("visibilitychange", change);
    change();
    return () => {
      document.removeEventListener("visibilitychange", change);
      close();
    };
  }, [handle, isThere, state]);
  return state.value;
}
