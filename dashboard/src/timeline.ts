/** When what has happened to a job: its steps, and how long it waited and ran, to be drawn to scale. */
import type { Schemas } from "./api/client";

export type Job = Schemas["Job"];

/**
 * `pause`: it was not to be handed out yet; `between`: it was held back or waited after an attempt, which of both is not
 * known any more; `failed`: an attempt that did not succeed.
 */
export type Part = "pause" | "between" | "wait" | "run" | "failed";

export interface Segment {
  part: Part;
  from: number;
  to: number;
  /** Of an attempt. */
  number?: number;
}

export interface Step {
  name: string;
  /** null: it has happened, but when is not known. */
  at: number | null;
  beside?: string;
}

export interface TimeLine {
  from: number;
  to: number;
  /** Whether it goes on. */
  isOpen: boolean;
  segments: Segment[];
  steps: Step[];
  /** Seconds of each part altogether. */
  sums: Record<Part, number>;
}

const CLOSE = 0.002; // seconds: two clocks tell of the same moment

/** The time line of a job at `now`; null: too little is known of it. Times that contradict each other are put in order. */
export function timelineOf(job: Job, now: number): TimeLine | null {
  const { history } = job;
  const from = job.created ?? history[0]?.started ?? job.queued ?? job.started;
  if (from === null || from === undefined) return null;
  const isOpen = job.state !== "ended" && job.state !== "dead";
  const latest = Math.max(from, job.queued ?? 0, job.started ?? 0, ...history.map((one) => one.ended));
  const end = isOpen ? now : (job.ended ?? job.died);
  const to = Math.max(latest, end ?? 0);
  const segments: Segment[] = [];
  let at = from;
  const add = (part: Part, until: number, number?: number) => {
    const isAttempt = part === "run" || part === "failed";
    if (until > at || isAttempt) {
      segments.push({ part, from: at, to: Math.max(at, until), ...(number === undefined ? {} : { number }) });
    }
    at = Math.max(at, until);
  };
  const wait = (until: number, isAgain: boolean) => {
    const isKnown = job.queued !== null && job.queued >= at - CLOSE && job.queued <= until + CLOSE;
    if (isKnown && job.queued !== null && job.queued > at + CLOSE) add("pause", job.queued);
    add(isAgain && !isKnown ? "between" : "wait", until);
  };
  let drawn = Number.NEGATIVE_INFINITY; // when the last attempt that is drawn began
  for (const [place, attempt] of history.entries()) {
    wait(attempt.started, place > 0 || attempt.number > 1);
    add("failed", attempt.ended, attempt.number);
    drawn = attempt.started;
  }
  const isRunning = job.state === "running";
  const hasRun = (isRunning || !isOpen) && job.started !== null && job.started > drawn + CLOSE;
  if (hasRun && job.started !== null) {
    wait(job.started, job.attempts > 0);
    add(job.outcome === "failed" ? "failed" : "run", to, history.length ? (history.at(-1)?.number ?? 0) + 1 : 1);
  } else if (job.state === "delayed") add("pause", to);
  else if (isOpen || job.outcome === "cancelled" || job.outcome === "abandoned") wait(to, job.attempts > 0);
  const sums: Record<Part, number> = { pause: 0, between: 0, wait: 0, run: 0, failed: 0 };
  for (const segment of segments) sums[segment.part] += segment.to - segment.from;
  return { from, to, isOpen, segments, steps: stepsOf(job), sums };
}

const ENDS: Record<string, string> = {
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  abandoned: "Abandoned",
};

function stepsOf(job: Job): Step[] {
  const steps: Step[] = [{ name: "Submitted", at: job.created }];
  if (job.queued !== null) steps.push({ name: job.attempts ? "Queued again" : "Queued", at: job.queued });
  const isAgain = job.attempts > 0;
  const isWaiting = job.state === "queued" || job.state === "blocked" || job.state === "delayed";
  if (job.state === "delayed") steps.push({ name: "Due", at: job.due });
  if (job.started !== null && !isWaiting) {
    steps.push({ name: isAgain ? "Assigned again" : "Assigned", at: job.started, beside: job.worker ?? "" });
  }
  if (job.state === "running" && job.progress) {
    const { numerator, denominator } = job.progress;
    steps.push({ name: "Status", at: null, beside: `${numerator} of ${denominator}` });
  }
  if (job.state === "dead") steps.push({ name: "Dead", at: job.died, beside: job.reason ?? "" });
  if (job.state === "ended") steps.push({ name: ENDS[job.outcome ?? ""] ?? job.outcome ?? "Ended", at: job.ended });
  const stored = storedStep(job);
  if (stored) steps.splice(placeOf(stored, steps), 0, stored);
  return steps;
}

function storedStep({ stored, stored_at }: Job): Step | null {
  if (stored === false) return { name: "Not stored", at: null, beside: "in memory alone" };
  return stored || stored_at !== null ? { name: "Stored", at: stored_at } : null;
}

/** Behind all that came before it: a job waits in its queue, and may be handed out, while the store still commits it. */
function placeOf({ at }: Step, steps: Step[]): number {
  if (at === null) return 1;
  const next = steps.findIndex((step, place) => place > 0 && (step.at === null || step.at >= at));
  return next < 0 ? steps.length : next;
}
