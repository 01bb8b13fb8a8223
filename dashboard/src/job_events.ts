/** What happens to one job while it happens: its stream of events, open while somebody looks and the job is there. */
import { signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { urlOf } from "./api/client";
import type { Content } from "./content";
import { NOTHING } from "./format";

export const ENDS = ["completed", "failed", "cancelled", "dead", "dropped", "abandoned", "refused"] as const;
export const KINDS = ["assigned", "data", "warning", "status", "retry", "gap", ...ENDS] as const;
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
  /** All but status, the newest last; of very many the last ones. */
  events: readonly Event[];
  progress: { numerator: number; denominator: number } | null;
  /** The last event, if it has come. */
  end: Event | null;
}

const KEPT = 200;
const OLD = 400; // milliseconds from the beginning of a stream, in which comes what had happened before

export const NOTHING_YET: Followed = { events: [], progress: null, end: null };

/** What is known after one more event. */
export function heard(before: Followed, kind: Kind, data: Told, at: number | null): Followed {
  if (kind === "status") {
    return { ...before, progress: { numerator: data.numerator ?? 0, denominator: data.denominator ?? 0 } };
  }
  const event = { number: (before.events.at(-1)?.number ?? 0) + 1, kind, at, data };
  return {
    events: [...before.events.slice(1 - KEPT), event],
    progress: kind === "assigned" || kind === "retry" ? null : before.progress,
    end: (ENDS as readonly string[]).includes(kind) ? event : null,
  };
}

/** An event in words; what it carries beside them is shown as it is. */
export function wordsOf({ kind, data }: Event): string {
  if (kind === "assigned") return `Attempt ${data.attempt ?? NOTHING} begins`;
  if (kind === "retry") return `The attempt did not succeed: ${data.reason ?? NOTHING}. Another one follows`;
  if (kind === "gap") return `${data.missed ?? "Some"} events before this are no longer there to be read`;
  if (data.left_out !== undefined) return `${data.left_out} bytes, too many to be told here`;
  return data.text ?? "";
}

/** The bytes of an event, if it carries any. */
export function contentOf(event: Event | null): Content | null {
  if (event?.data.text !== undefined) return { text: event.data.text };
  return event?.data.base64 === undefined ? null : { base64: event.data.base64 };
}

/** Follow a job, the same as long as this is drawn; `changed` is called when something has come that its state depends on. */
export function useEvents(handle: string, isThere: boolean, changed: () => void): Followed {
  const state = useMemo(() => signal(NOTHING_YET), []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what `changed` does is the same for one job
  useEffect(() => {
    if (!isThere) return;
    let source: EventSource | null = null;
    let last = "";
    const close = () => {
      source?.close();
      source = null;
    };
    const open = () => {
      close();
      const url = urlOf("/api/v1/jobs/{handle}/events", { handle }, { last_event_id: last });
      const stream = new EventSource(url);
      let began = Number.POSITIVE_INFINITY;
      stream.addEventListener("open", () => {
        began = Date.now();
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
      source = stream;
    };
    const change = () => {
      if (document.hidden) close();
      else if (!state.peek().end) open();
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
