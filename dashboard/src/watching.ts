/** What the playground knows of its job: its data and result as text, and what happened with seconds from its start. */
import { bytesOf, hexDump } from "./content";
import { ENDS, type Told } from "./job_events";

export interface Happening {
  /** Seconds since it was begun to follow the job. */
  at: number;
  event: string;
  /** What it says, in a few words. */
  text: string;
}

export interface Watched {
  /** `gone`: nothing is told of the job any more. */
  phase: "waiting" | "running" | "ended" | "gone";
  /** The last event: completed, failed, ... */
  end: string | null;
  attempt: number;
  progress: { numerator: number; denominator: number } | null;
  /** What the worker has sent before the result. */
  data: string;
  /** The result, or why there is none. */
  result: string | null;
  happenings: readonly Happening[];
  leftOut: number;
}

export const UNSEEN: Watched = {
  phase: "waiting",
  end: null,
  attempt: 0,
  progress: null,
  data: "",
  result: null,
  happenings: [],
  leftOut: 0,
};

const MOST = 200; // happenings that are shown
const MOST_DATA = 100_000; // characters

/** What is known after one more event. */
export function heard(before: Watched, event: string, told: Told, at: number): Watched {
  const after = { ...before };
  let text = contentOf(told);
  if (event === "assigned") {
    after.phase = "running";
    after.attempt = told.attempt ?? 1;
    after.progress = null;
    text = after.attempt > 1 ? `attempt ${after.attempt}` : "";
  } else if (event === "status") {
    after.phase = "running";
    after.progress = { numerator: told.numerator ?? 0, denominator: told.denominator ?? 0 };
    text = `${after.progress.numerator} of ${after.progress.denominator}`;
  } else if (event === "data") {
    after.phase = "running";
    after.data = (before.data + text).slice(-MOST_DATA);
  } else if (event === "retry") {
    after.phase = "waiting";
    text = told.reason ?? "";
  } else if (event === "gap") {
    text = told.missed ? `${told.missed} events are no longer there` : "what was before is no longer there";
  } else if ((ENDS as readonly string[]).includes(event)) {
    after.phase = "ended";
    after.end = event;
    after.result = text;
  }
  const happenings = [...before.happenings, { at, event, text: firstLine(text) }];
  after.leftOut = before.leftOut + Math.max(happenings.length - MOST, 0);
  after.happenings = happenings.slice(-MOST);
  return after;
}

/** The data and the result, where `whole` is both together: those who follow may have come after the first data. */
export function withWhole({ data, result }: Watched, whole: string | null): Pick<Watched, "data" | "result"> {
  if (whole === null) return { data, result };
  if (result === null) return { data, result: whole };
  return whole.endsWith(result) ? { data: whole.slice(0, whole.length - result.length), result } : { data, result };
}

function firstLine(text: string): string {
  const [line = ""] = text.trimStart().split("\n", 1);
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}

/** Bytes as they can be read: text, or what they are in hexadecimal. */
export function contentOf({ text, base64, left_out }: Told): string {
  if (text !== undefined) return text;
  if (base64 !== undefined) return hexadecimal(bytesOf({ base64 }));
  return left_out === undefined ? "" : `(${left_out} bytes, too many to be told here)`;
}

const SHOWN = 4096; // bytes in hexadecimal

function hexadecimal(bytes: Uint8Array): string {
  const dump = hexDump(bytes.subarray(0, SHOWN));
  return bytes.length > SHOWN ? `${dump}\nand ${bytes.length - SHOWN} bytes more` : dump;
}

/** JSON on lines of its own; anything else as it is. */
export function pretty(text: string): string {
  if (!/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
