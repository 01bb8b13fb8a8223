/** Dead letters: which ones are meant, how many those are, and what is to be typed before they are thrown away. */
import type { Schemas } from "./api/client";
import type { State } from "./components/basics";

export type Group = Schemas["Group"];
export type Groups = Schemas["GroupPage"];

/** As the API has them, and what each means. */
export const REASONS = {
  fail: "its worker said that it failed",
  exception: "its worker sent an exception",
  timeout: "it ran for too long",
  lost: "its worker was lost",
  retry: "its worker wanted it to be tried again, and no attempt was left",
  reject: "its worker said that no other attempt would help",
  expired: "it was not done in time",
  dropped: "the queue was full",
} as const;
export type Reason = keyof typeof REASONS;
export const REASON_NAMES = Object.keys(REASONS) as Reason[];

const STATES: Record<string, State> = { timeout: "retried", retry: "retried", expired: "delayed", dropped: "delayed" };

/** The colour of a reason: what a worker said of it, what took too long, and what never ran. */
export const stateOf = (reason: string): State => STATES[reason] ?? "failed";

/** What is meant: the same words as those with which the API is told so. */
export type Meant =
  | { handles: string[] }
  | { group: number; function: string }
  | { function?: string; reason?: Reason };

/** How the API is told it. */
export function bodyOf(meant: Meant): Schemas["Selection"] {
  if ("handles" in meant) return { handles: meant.handles, all: false };
  if ("group" in meant) return { group: meant.group, all: false };
  const { function: name, reason } = meant;
  if (name === undefined && reason === undefined) return { all: true };
  return { ...(name !== undefined && { function: name }), ...(reason && { reason }), all: false };
}

/** What has to be typed before they are thrown away; undefined: it is one, and a click does. */
export function toType(meant: Meant): string | undefined {
  if ("handles" in meant) return undefined;
  return meant.function ?? ("reason" in meant ? meant.reason : undefined) ?? "everything";
}

/** What is meant, for the middle of a sentence: "of resize that died of timeout". */
export function inWords(meant: Meant): string {
  if ("handles" in meant) return meant.handles.join(", ");
  if ("group" in meant) return `of ${meant.function} in this group`;
  const { function: name, reason } = meant;
  const of = name === undefined ? "of all functions" : `of ${name}`;
  return reason ? `${of} with the reason ${reason}` : of;
}

/** A rate as it is typed: none is all at once; null: it can't be meant. */
export function rateOf(text: string): number | undefined | null {
  if (!text.trim()) return undefined;
  const value = Number(text);
  return Number.isInteger(value) && value >= 1 && value <= 999_999 ? value : null;
}

/** A group, or an attempt, in a line: its error, or what happened where nothing was said. */
export function headline(error: string, reason: string): string {
  return lineOf(error) || (REASONS[reason as Reason] ?? reason);
}

/** The line of an error that says most, as the job server groups by it: of a traceback the last one. */
export function lineOf(error: string): string {
  const lines = error.trim().split("\n");
  return (lines[0]?.startsWith("Traceback") ? lines.at(-1) : lines[0]) ?? "";
}
