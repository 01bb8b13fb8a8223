/** Which jobs are looked for, as the URL tells it and as the API is asked, and how they are searched. */
import { type Signal, signal } from "@preact/signals";
import { get, Problem, post, type Schemas } from "./api/client";
import { NOTHING } from "./format";
import type { Job } from "./timeline";

export type Row = Schemas["JobRow"];
type Page = Schemas["JobPage"];

export const STATES = ["queued", "blocked", "delayed", "running", "dead"] as const;
export const PRIORITIES = ["high", "normal", "low"] as const;
export const ORDERS = ["newest", "oldest"] as const;
export type JobState = (typeof STATES)[number];
export type Priority = (typeof PRIORITIES)[number];

/** What may be in the query beside the order and the page; `older_than` is written as people do: 5m. */
export const FILTERS = [
  "state",
  "function",
  "handle",
  "unique",
  "older_than",
  "attempt",
  "priority",
  "client",
  "worker",
] as const;
export type FilterName = (typeof FILTERS)[number];

export interface Filters {
  state?: JobState;
  function?: string;
  handle?: string;
  unique?: string;
  older_than?: number;
  attempt?: number;
  priority?: Priority;
  client?: string;
  worker?: string;
}

const UNITS: Record<string, number> = { ms: 0.001, s: 1, sec: 1, m: 60, min: 60, h: 3600, d: 86400 };

/** Seconds of "90", "5m", "2 h" or "1d"; null: it is none. */
export function ageOf(text: string): number | null {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text);
  const unit = UNITS[found?.[2]?.toLowerCase() || "s"];
  return found && unit ? Number(found[1]) * unit : null;
}

/** A count that is not negative; null: it is none. */
export function countOf(text: string): number | null {
  return /^\s*\d{1,9}\s*$/.test(text) ? Number(text) : null;
}

/** Whether a filter may be what is written. */
export function isFit(name: FilterName, text: string): boolean {
  if (!text) return true;
  if (name === "older_than") return ageOf(text) !== null;
  if (name === "attempt") return countOf(text) !== null;
  if (name === "state") return (STATES as readonly string[]).includes(text);
  if (name === "priority") return (PRIORITIES as readonly string[]).includes(text);
  return true;
}

/** The filters of a query; what can't be meant is left out. */
export function filtersOf(query: URLSearchParams): Filters {
  const found: Record<string, string | number> = {};
  for (const name of FILTERS) {
    const text = query.get(name) ?? "";
    if (!text || !isFit(name, text)) continue;
    found[name] = name === "older_than" ? (ageOf(text) ?? 0) : name === "attempt" ? (countOf(text) ?? 0) : text;
  }
  return found as Filters;
}

/** What is meant, in words, for a question before something is done to all of them. */
export function inWords(filters: Filters, age: (seconds: number) => string): string {
  const parts: string[] = [];
  if (filters.state) parts.push(`in the state ${filters.state}`);
  if (filters.function !== undefined) parts.push(`of the function ${filters.function}`);
  if (filters.handle !== undefined) parts.push(`with a handle that begins with ${filters.handle}`);
  if (filters.unique !== undefined) parts.push(`with the unique ${filters.unique}`);
  if (filters.older_than !== undefined) parts.push(`older than ${age(filters.older_than)}`);
  if (filters.attempt !== undefined) parts.push(`with at least ${filters.attempt} failed attempts`);
  if (filters.priority) parts.push(`of priority ${filters.priority}`);
  if (filters.client !== undefined) parts.push(`of clients like ${filters.client}`);
  if (filters.worker !== undefined) parts.push(`at workers like ${filters.worker}`);
  return parts.length ? parts.join(", ") : "of all functions, in any state";
}

// ── what can be done ───────────────────────────────────────────────────────────────────────────────────────────────

export type Action = "cancel" | "retry" | "priority";

/** Whether something can be done to a job; the job server has the same rules. */
export function suits(action: Action, state: string): boolean {
  if (action === "cancel") return state !== "dead" && state !== "ended";
  if (action === "retry") return state === "dead" || state === "delayed";
  return state === "queued" || state === "blocked" || state === "delayed";
}

/** Do it to all jobs that the filters mean, or only count them; `told` hears how many there are so far. */
export async function doToMany(
  action: Action,
  filters: Filters,
  priority: Priority,
  isPreview: boolean,
  told: (count: number) => void,
  signal?: AbortSignal,
): Promise<number> {
  let count = 0;
  const all = !Object.keys(filters).length;
  for (let after: number | null = 0; after !== null; ) {
    const body = { ...filters, all, dry_run: isPreview, after };
    const rest = signal ? { signal } : {};
    const done: Schemas["ManyDone"] =
      action === "priority"
        ? await post("/api/v1/jobs/priority", { body: { ...body, new_priority: priority }, ...rest })
        : await post(action === "cancel" ? "/api/v1/jobs/cancel" : "/api/v1/jobs/retry", { body, ...rest });
    count += done.count;
    after = done.next;
    told(count);
  }
  return count;
}

// ── one job ────────────────────────────────────────────────────────────────────────────────────────────────────────

export function statusOf(handle: string, signal?: AbortSignal): Promise<Schemas["JobStatus"]> {
  return get("/api/v1/jobs/{handle}/status", { path: { handle }, ...(signal && { signal }) });
}

/** A job; null: it is not known. It is asked for first whether it is, since a browser's console tells refusals as errors. */
export async function jobOf(handle: string, signal: AbortSignal): Promise<Job | null> {
  const { known } = await statusOf(handle, signal);
  return known ? orNull(get("/api/v1/jobs/{handle}", { path: { handle }, signal })) : null;
}

/** Why a job waits, in a sentence; null: it has ended, or is not known. */
export async function whyOf(handle: string, signal: AbortSignal): Promise<string | null> {
  const { state } = await statusOf(handle, signal);
  if (state === null || state === "ended") return null;
  return (await orNull(get("/api/v1/jobs/{handle}/why", { path: { handle }, signal })))?.why ?? null;
}

/** What is asked for, or null where it has gone between the two questions. */
async function orNull<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  }
}

// ── the search ─────────────────────────────────────────────────────────────────────────────────────────────────────

const PAGE = 50;
const MOST_QUESTIONS = 20; // for one page: the job server looks at so many jobs for each that it ends in between
const SHARE = 10; // how much longer than a search took nothing is searched again by itself

/** Finds a page of jobs. A search that took long is not made again soon, and none while it is held. */
export class JobSearch {
  /** Where something is selected the rows are to stay where they are. */
  isHeld = false;
  /** How many questions were asked for the page that is on its way. */
  readonly asked: Signal<number> = signal(0);
  private last: Page | undefined;
  private ended = 0;
  private took = 0;
  private readonly query: Filters & { order: (typeof ORDERS)[number]; after: number };
  private readonly ask: (query: object, signal: AbortSignal) => Promise<Page>;

  constructor(
    query: JobSearch["query"],
    ask: JobSearch["ask"] = (query, signal) => get("/api/v1/jobs", { query, signal }),
  ) {
    this.query = query;
    this.ask = ask;
  }

  /** Have the next search be made, whatever the last one took. */
  forget(): void {
    this.ended = 0;
    this.isHeld = false;
  }

  async find(signal: AbortSignal, now: () => number = Date.now): Promise<Page> {
    if (this.last && (this.isHeld || now() - this.ended < SHARE * this.took)) return this.last;
    const began = now();
    const jobs: Row[] = [];
    let next: number | null = this.query.after;
    this.asked.value = 0;
    for (let asked = 0; asked < MOST_QUESTIONS && next !== null && jobs.length < PAGE; asked++) {
      const page: Page = await this.ask({ ...this.query, after: next, limit: PAGE - jobs.length }, signal);
      jobs.push(...page.jobs);
      next = page.next;
      this.asked.value = asked + 1;
    }
    this.ended = now();
    this.took = this.ended - began;
    this.last = { jobs, next };
    return this.last;
  }
}

/** How far a job is, as a share of one; null: it has not said so. */
export function shareOf(progress: { numerator: number; denominator: number } | null): number | null {
  return progress?.denominator ? Math.min(progress.numerator / progress.denominator, 1) : null;
}

/** Since when it waits or runs; null: it does neither now. */
export function sinceOf(row: Pick<Row, "state" | "queued_at" | "started_at">): number | null {
  if (row.state === "running") return row.started_at;
  return row.state === "queued" || row.state === "blocked" ? row.queued_at : null;
}

/** The worker without its host where it has a name. */
export function workerName(worker: string | null): string {
  if (worker === null) return NOTHING;
  const [id = "", ...rest] = worker.split(" ");
  return id === "-" ? rest.join(" ") || id : id;
}
