/** One job: its time line, why it waits, its attempts, what it was given and what it said. */
import { useMemo, useRef, useState } from "preact/hooks";
import { get, type Problem, type Schemas } from "../api/client";
import {
  Badge,
  Command,
  Copy,
  coloured,
  EmptyState,
  KeyValue,
  PageHead,
  ProblemNote,
  type State,
} from "../components/basics";
import { Confirm } from "../components/dialog";
import { Icon } from "../components/icons";
import { attempt } from "../components/toast";
import { Viewer } from "../components/viewer";
import type { Content } from "../content";
import { useFetched } from "../fetching";
import { bytes, count, duration, exactTime, NOTHING, percent, time } from "../format";
import { contentOf, type Event, type Followed, useEvents, wordsOf } from "../job_events";
import { type Action, jobOf, PRIORITIES, type Priority, shareOf, suits, whyOf } from "../jobs";
import { overview } from "../live";
import { to } from "../router";
import { may } from "../session";
import { type Job, type Part, type Segment, type TimeLine, timelineOf } from "../timeline";
import { doToOne } from "./jobs";

const SHOWN = 1024 * 1024; // bytes of a workload or a result that are fetched without being asked for
const MOST = 32 * 1024 * 1024; // bytes that a page takes at all

export default function JobScreen({ handle = "" }: { handle?: string }) {
  const told = useFetched(handle, (signal) => jobOf(handle, signal));
  const last = useRef<Job | null>(null); // what was known of it before it had gone
  last.current = told.data ?? last.current;
  const known = last.current;
  const isGone = told.data === null;
  const isThere = known !== null && !isGone && known.state !== "ended" && known.state !== "dead";
  const followed = useEvents(handle, isThere, told.again);
  if (!known) {
    if (isGone) return <Unknown handle={handle} />;
    return (
      <>
        <Crumbs />
        <PageHead title={handle} />
        <ProblemNote problem={told.problem} />
      </>
    );
  }
  const job = isGone ? endOf(known, followed.end) : withProgress(known, followed);
  return <Known job={job} followed={followed} problem={told.problem} again={told.again} />;
}

/** A job that the job server does not know any more, with what its last event has told. */
function endOf(job: Job, end: Event | null): Job {
  const outcome = end ? (end.kind === "dropped" || end.kind === "refused" ? "abandoned" : end.kind) : null;
  return { ...job, state: "ended", outcome, ended: end?.at ?? job.ended };
}

function withProgress(job: Job, { progress }: Followed): Job {
  return job.state === "running" && progress ? { ...job, progress } : job;
}

function Crumbs({ job }: { job?: Job }) {
  return (
    <nav class="crumbs small" aria-label="Where this is">
      <a href={to(["jobs"])}>Jobs</a>
      {job?.function && (
        <>
          <span class="muted"> / </span>
          <a href={to(["jobs"], { function: job.function })}>{job.function}</a>
        </>
      )}
    </nav>
  );
}

function Unknown({ handle }: { handle: string }) {
  return (
    <>
      <Crumbs />
      <PageHead title={handle} />
      <div class="card">
        <EmptyState icon="jobs" title="This job is not known" command="geartrain admin policy set FUNCTION results=1h">
          It has ended, or never was. What has ended is known as long as its result is kept, for which its function
          needs the policy <code>results</code>; beside that the latest jobs of each function are.{" "}
          <a href={to(["jobs"])}>All jobs</a>
        </EmptyState>
      </div>
    </>
  );
}

const OUTCOMES: Record<string, State> = { completed: "completed", failed: "failed" };

function Standing({ job }: { job: Job }) {
  if (job.state !== "ended") return <Badge state={job.state as State} />;
  return <Badge state={OUTCOMES[job.outcome ?? ""] ?? "paused"}>{job.outcome ?? "ended"}</Badge>;
}

function Known(props: { job: Job; followed: Followed; problem: Problem | null; again: () => void }) {
  const { job, followed } = props;
  const line = timelineOf(job, overview.value?.time ?? 0);
  return (
    <>
      <Crumbs job={job} />
      <PageHead
        title={job.handle}
        beside={
          <>
            <Standing job={job} />
            <Copy text={job.handle} label="Copy the handle" />
          </>
        }
      >
        {may("operate") && <Actions job={job} again={props.again} />}
      </PageHead>
      <ProblemNote problem={props.problem} />
      <div class="stack job fresh">
        <Why job={job} />
        {line && <Line line={line} job={job} />}
        <Attempts job={job} />
        <div class="charts facts">
          <About job={job} />
          <Live job={job} followed={followed} />
          <Outcome job={job} end={followed.end} />
          <Payload job={job} />
        </div>
      </div>
    </>
  );
}

// ── what can be done ───────────────────────────────────────────────────────────────────────────────────────────────

function Actions({ job, again }: { job: Job; again: () => void }) {
  const [isCancelling, setCancelling] = useState(false);
  const { handle, state } = job;
  const run = async (action: Action, priority: Priority, done: string) => {
    await attempt(() => doToOne(action, handle, priority), done);
    again();
  };
  return (
    <>
      {suits("priority", state) && (
        <label class="beside-field small">
          <span class="muted">Priority</span>
          <select
            class="input"
            value={job.priority}
            onChange={(event) => {
              const priority = event.currentTarget.value as Priority;
              void run("priority", priority, `${handle} has ${priority} priority`);
            }}
          >
            {PRIORITIES.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      )}
      {suits("retry", state) && (
        <button type="button" class="button" onClick={() => run("retry", "normal", `${handle} waits again`)}>
          <Icon name="resume" />
          {state === "delayed" ? "Run now" : "Try again"}
        </button>
      )}
      {suits("cancel", state) && (
        <button type="button" class="button danger" onClick={() => setCancelling(true)}>
          <Icon name="close" />
          Cancel
        </button>
      )}
      {isCancelling && (
        <Confirm
          title={`Cancel ${handle}`}
          action="Cancel the job"
          dangerous
          done={`${handle} is cancelled`}
          run={() => doToOne("cancel", handle, "normal")}
          close={(isDone) => {
            setCancelling(false);
            if (isDone) again();
          }}
        >
          <p>
            {state === "running"
              ? "It goes on at its worker, and nobody hears how it ends."
              : "It is taken away for good, and its clients are told that it failed."}
          </p>
        </Confirm>
      )}
    </>
  );
}

// ── why it waits ───────────────────────────────────────────────────────────────────────────────────────────────────

function Why({ job }: { job: Job }) {
  const isWaiting = job.state === "queued" || job.state === "blocked" || job.state === "delayed";
  return isWaiting ? <Reason job={job} /> : null;
}

function Reason({ job: { handle, state, why } }: { job: Job }) {
  const { data } = useFetched(`${handle} ${state}`, (signal) => whyOf(handle, signal));
  return (
    <p class="card why" style={coloured(state as State)}>
      <strong>Why it waits</strong>
      <span>{data ?? why ?? NOTHING}</span>
    </p>
  );
}

// ── its time line ──────────────────────────────────────────────────────────────────────────────────────────────────

const PARTS: Record<Part, { title: string; state: State }> = {
  pause: { title: "Held back", state: "delayed" },
  between: { title: "Between attempts", state: "paused" },
  wait: { title: "Waiting", state: "queued" },
  run: { title: "Running", state: "running" },
  failed: { title: "Failed attempts", state: "failed" },
};
const NARROW = 0.09; // the share of the line below which there is no room for words

function titleOf({ part, from, to, number }: Segment): string {
  const what = part === "failed" ? `Attempt ${number ?? ""} failed after` : `${PARTS[part].title} for`;
  return `${what} ${duration(to - from)}, from ${exactTime(from)}`;
}

function Line({ line, job }: { line: TimeLine; job: Job }) {
  const whole = line.to - line.from;
  const parts = (Object.keys(PARTS) as Part[]).filter((part) => line.segments.some((one) => one.part === part));
  return (
    <section class="card timeline" aria-label="Time line">
      <div class="card-head">
        <h2>Time line</h2>
        <ul class="legend end">
          {parts.map((part) => (
            <li key={part}>
              <i class="swatch" style={coloured(PARTS[part].state)} />
              {PARTS[part].title}
              <span class="amount">{duration(line.sums[part])}</span>
            </li>
          ))}
        </ul>
      </div>
      <div class="card-body">
        <div class={line.isOpen ? "track open" : "track"} aria-hidden="true">
          {line.segments.map((one, at) => {
            const share = whole > 0 ? (one.to - one.from) / whole : 1;
            return (
              <i
                key={at}
                class={one.part}
                style={{ ...coloured(PARTS[one.part].state), flexGrow: share }}
                title={titleOf(one)}
              >
                {share > NARROW && duration(one.to - one.from)}
              </i>
            );
          })}
        </div>
        <div class="scale muted small" aria-hidden="true">
          <span>{precise(line.from)}</span>
          <span>{duration(whole)}</span>
          <span>{line.isOpen ? "now" : precise(line.to)}</span>
        </div>
        <ol class="steps">
          {line.steps.map((step) => (
            <li key={step.name} class={step.at === null ? "undated" : ""}>
              <strong>{step.name}</strong>
              <span class="at" title={exactTime(step.at)}>
                {step.at === null ? "" : precise(step.at)}
              </span>
              {step.at !== null && step.at > line.from && (
                <span class="muted small">
                  {job.state === "delayed" && step.name === "Due" ? "" : `+ ${duration(step.at - line.from)}`}
                </span>
              )}
              {step.beside && <span class="muted small beside">{step.beside}</span>}
            </li>
          ))}
        </ol>
      </div>
    </section>
  );
}

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
});

/** A time with milliseconds; with the day instead if that is not today. */
function precise(seconds: number): string {
  const date = new Date(1000 * seconds);
  return date.toDateString() === new Date().toDateString() ? clock.format(date) : exactTime(seconds);
}

// ── what is known of it ────────────────────────────────────────────────────────────────────────────────────────────

function About({ job }: { job: Job }) {
  const rows: [string, preact.ComponentChildren][] = [];
  if (job.function) {
    rows.push(["Function", <a href={to(["functions", job.function])}>{job.function}</a>]);
    rows.push(["Unique", job.unique ? <code>{job.unique}</code> : NOTHING]);
  }
  if (job.priority) {
    rows.push([
      "Kind",
      `${job.background ? "in the background" : "in the foreground"}, ${job.priority} priority` +
        (job.clients ? `, ${count(job.clients)} waiting for it` : ""),
    ]);
  }
  if (job.function)
    rows.push(["Attempts failed", `${count(job.attempts)}${job.max_attempts ? ` of ${count(job.max_attempts)}` : ""}`]);
  if (job.due && job.state === "delayed") rows.push(["Due", exactTime(job.due)]);
  if (job.worker) {
    const href =
      job.connection === null ? to(["jobs"], { worker: job.worker }) : to(["connections", String(job.connection)]);
    rows.push(["Worker", <a href={href}>{job.worker}</a>]);
  }
  if (job.reason) rows.push([job.state === "dead" ? "Died of" : "Failed by", job.reason]);
  if (job.result_size !== null) rows.push(["Result", bytes(job.result_size)]);
  if (job.kept_until) rows.push(["Result is kept until", exactTime(job.kept_until)]);
  return (
    <section class="card">
      <div class="card-head">
        <h2>What is known</h2>
      </div>
      <div class="card-body stack">
        {!job.function && <p class="muted">The job has ended, and only its result is kept.</p>}
        <KeyValue rows={rows} />
      </div>
    </section>
  );
}

// ── what it says while it runs ─────────────────────────────────────────────────────────────────────────────────────

const EVENTS: Partial<Record<Event["kind"], State>> = {
  assigned: "running",
  data: "queued",
  warning: "retried",
  retry: "retried",
  completed: "completed",
  failed: "failed",
  dead: "dead",
};

function Live({ job, followed }: { job: Job; followed: Followed }) {
  const share = job.state === "running" ? shareOf(job.progress) : null;
  const now = overview.value?.time ?? 0;
  const ran = job.started === null ? 0 : Math.max(now - job.started, 0);
  const events = followed.events.filter(({ kind }) => kind !== "status"); // which the bar shows
  if (job.state !== "running" && !events.length) return null;
  return (
    <section class="card">
      <div class="card-head">
        <h2>Progress and data</h2>
        <span class="muted small end">as it comes</span>
      </div>
      <div class="card-body stack">
        {share !== null && job.progress && (
          <div class="job-progress" style={coloured("running")}>
            <div class="bar">
              <strong>{percent(share)}</strong>
              <span class="muted small">
                {count(job.progress.numerator)} of {count(job.progress.denominator)}
              </span>
              {share > 0 && share < 1 && (
                <span class="muted small end">about {duration(Math.ceil((ran * (1 - share)) / share))} to go</span>
              )}
            </div>
            <progress value={share} aria-label="Progress" />
          </div>
        )}
        {events.length ? (
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is to be reached by the keyboard
          <ol class="events" aria-label="What it says" tabIndex={0}>
            {events.toReversed().map((event) => (
              <li key={event.number}>
                <Badge state={EVENTS[event.kind] ?? "paused"}>{event.kind}</Badge>
                <span class="said">{said(event)}</span>
                <span class="muted small">{event.at === null ? "" : time(event.at)}</span>
              </li>
            ))}
          </ol>
        ) : (
          share === null && <p class="muted">It has said nothing yet. Data, warnings and status appear here.</p>
        )}
      </div>
    </section>
  );
}

const LONG = 400; // letters of an event

function said(event: Event): string {
  const words = wordsOf(event);
  return words.length > LONG ? `${words.slice(0, LONG)}…` : words;
}

// ── its attempts ───────────────────────────────────────────────────────────────────────────────────────────────────

export function Attempts({ job }: { job: Job }) {
  if (!job.history.length) return null;
  const isCut = job.history.length < job.attempts;
  return (
    <section class="card">
      <div class="card-head">
        <h2>Attempts that did not succeed</h2>
        <span class="muted small end">
          {isCut ? `the last ${count(job.history.length)} of ${count(job.attempts)}` : count(job.history.length)}
        </span>
      </div>
      <ul class="rows attempts">
        {job.history.toReversed().map((one, at) => (
          <Tried key={`${one.number} ${one.started}`} tried={one} isOpen={at === 0} />
        ))}
      </ul>
    </section>
  );
}

function Tried({ tried, isOpen }: { tried: Schemas["Attempt"]; isOpen: boolean }) {
  return (
    <li>
      <details open={isOpen}>
        <summary>
          <span class="bar">
            <strong>{count(tried.number)}</strong>
            <Badge state={tried.reason === "retry" ? "retried" : "failed"}>{tried.reason}</Badge>
            <span class="small">ran {duration(tried.ended - tried.started)}</span>
            <span class="muted small">{tried.worker}</span>
            <span class="muted small end" title={exactTime(tried.ended)}>
              {time(tried.ended)}
            </span>
          </span>
        </summary>
        {tried.text ? (
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is to be reached by the keyboard
          <pre class="bytes" tabIndex={0}>
            {tried.text}
          </pre>
        ) : (
          <p class="muted small">The worker said nothing</p>
        )}
      </details>
    </li>
  );
}

// ── what it was given, and what came of it ─────────────────────────────────────────────────────────────────────────

export function Payload({ job }: { job: Job }) {
  const [isWanted, setWanted] = useState(false);
  const [wasThere] = useState(job.state !== "ended");
  if (!wasThere) return <Missing title="Payload">It was kept until the job ended.</Missing>;
  const size = job.size ?? 0;
  if (size > MOST)
    return <TooLarge title="Payload" size={size} path={`jobs/${encodeURIComponent(job.handle)}/workload`} />;
  if (size > SHOWN && !isWanted) return <Ask title="Payload" size={size} load={() => setWanted(true)} />;
  return <LoadedPayload handle={job.handle} />;
}

const ONCE = Number.POSITIVE_INFINITY;

function LoadedPayload({ handle }: { handle: string }) {
  const path = { handle };
  const { data, problem } = useFetched(
    `workload ${handle}`,
    (signal) => get("/api/v1/jobs/{handle}/workload", { path, signal }),
    ONCE,
  );
  if (data) return <Viewer title="Payload" name={`${handle}.payload`} content={data} />;
  return <Missing title="Payload">{problem?.message ?? "Loading"}</Missing>;
}

function Outcome({ job, end }: { job: Job; end: Event | null }) {
  const [isWanted, setWanted] = useState(false);
  const told = useMemo(() => contentOf(end), [end]);
  const title = job.outcome === "failed" || end?.kind === "failed" || end?.kind === "dead" ? "Error" : "Result";
  if (job.state !== "ended") return null;
  if (told && end) return <Viewer title={title} name={`${job.handle}.result`} content={told} />;
  if (job.result_size !== null) {
    if (job.result_size > MOST) {
      return <TooLarge title={title} size={job.result_size} path={`jobs/${encodeURIComponent(job.handle)}/result`} />;
    }
    if (job.result_size > SHOWN && !isWanted) {
      return <Ask title={title} size={job.result_size} load={() => setWanted(true)} />;
    }
    return <LoadedResult title={title} handle={job.handle} />;
  }
  if (job.text) return <Viewer title="Error" name={`${job.handle}.error`} content={{ text: job.text }} />;
  return (
    <Missing title={title}>
      It was not kept. With the policy <code>results</code>, such as <code>results=1h</code>, its function keeps results
      for so long.
    </Missing>
  );
}

function LoadedResult({ title, handle }: { title: string; handle: string }) {
  const path = { handle };
  const { data, problem } = useFetched(
    `result ${handle}`,
    (signal) => get("/api/v1/jobs/{handle}/result", { path, signal }),
    ONCE,
  );
  const content: Content | null | undefined = data && (data.state === "completed" ? data.result : data.error);
  if (content) return <Viewer title={title} name={`${handle}.result`} content={content} />;
  return <Missing title={title}>{problem?.message ?? (data ? "The worker said nothing." : "Loading")}</Missing>;
}

function Missing({ title, children }: { title: string; children: preact.ComponentChildren }) {
  return (
    <section class="card">
      <div class="card-head">
        <h2>{title}</h2>
      </div>
      <p class="card-body muted">{children}</p>
    </section>
  );
}

function Ask({ title, size, load }: { title: string; size: number; load: () => void }) {
  return (
    <section class="card">
      <div class="card-head">
        <h2>{title}</h2>
        <span class="muted small">{bytes(size)}</span>
      </div>
      <div class="card-body">
        <button type="button" class="button" onClick={load}>
          Load {bytes(size)}
        </button>
      </div>
    </section>
  );
}

function TooLarge({ title, size, path }: { title: string; size: number; path: string }) {
  return (
    <section class="card">
      <div class="card-head">
        <h2>{title}</h2>
        <span class="muted small">{bytes(size)}</span>
      </div>
      <div class="card-body">
        <p class="muted">That is too much for a page. Have it in a file:</p>
        <Command text={`curl -o ${title.toLowerCase()}.json '${location.origin}/api/v1/${path}'`} />
      </div>
    </section>
  );
}
