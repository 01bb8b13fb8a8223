/** The live overview: one stream for the tab, closed while nobody looks at it, and honest about when it is lost. */
import { computed, signal } from "@preact/signals";
import type { Schemas } from "./api/client";
import { look } from "./session";

export type Overview = Schemas["Overview"];
export type Wrong = Schemas["Wrong"];

/** `lost` means that what is shown was true at `since`, in milliseconds, and may not be any more. */
export interface Connection {
  state: "connecting" | "live" | "lost";
  since: number;
}

/** The newest that was told; null: nothing yet. */
export const overview = signal<Overview | null>(null);
export const connection = signal<Connection>({ state: "connecting", since: Date.now() });

/** What was told lately, for the ends of the charts. */
export const recent = signal<readonly Overview[]>([]);

/** Whether numbers on the screen may be old. */
export const isStale = computed(() => connection.value.state === "lost");

const KEPT = 1000;
const PATIENCE = 5000; // milliseconds without an event, after which the connection counts as lost
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 10_000;

let source: EventSource | null = null;
let watchdog = 0;
let retry = 0;
let pause = FIRST_PAUSE;

/** Begin to follow, and stop and begin again as the tab is hidden and shown. */
export function follow(): () => void {
  const change = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", change);
  change();
  return () => {
    document.removeEventListener("visibilitychange", change);
    close();
  };
}

function open(): void {
  close();
  source = new EventSource("/api/v1/live");
  source.addEventListener("overview", (event) => receive(JSON.parse(event.data) as Overview));
  source.addEventListener("error", () => {
    lose();
    // A browser comes back by itself, but not where it was refused: then perhaps the session has ended.
    if (source?.readyState === EventSource.CLOSED) {
      close();
      retry = window.setTimeout(() => {
        pause = Math.min(2 * pause, LONGEST_PAUSE);
        void look().then(open);
      }, pause);
    }
  });
  await_();
}

function close(): void {
  source?.close();
  source = null;
  clearTimeout(watchdog);
  clearTimeout(retry);
}

function await_(): void {
  clearTimeout(watchdog);
  watchdog = window.setTimeout(() => {
    lose();
    open();
  }, PATIENCE);
}

function lose(): void {
  if (connection.value.state !== "lost") connection.value = { state: "lost", since: Date.now() };
}

function receive(told: Overview): void {
  pause = FIRST_PAUSE;
  await_();
  const before = overview.value;
  recent.value = before && told.time < before.time ? [told] : [...recent.value.slice(1 - KEPT), told];
  overview.value = told;
  if (connection.value.state !== "live") connection.value = { state: "live", since: Date.now() };
}
