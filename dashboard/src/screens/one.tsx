/** One connection: what it can do, what it runs, and how long it has been there. */
import { useMemo, useRef, useState } from "preact/hooks";
import { get } from "../api/client";
import { EmptyState, KeyValue, PageHead, ProblemNote } from "../components/basics";
import { Disconnect } from "../components/disconnect";
import { Icon } from "../components/icons";
import { type Connection, canGo, doingOf, nameOf, useDoneRates } from "../connections";
import { useFetched } from "../fetching";
import { ago, count, duration, exactTime, percent, plural, rate, time } from "../format";
import { jobOf } from "../jobs";
import { go, to } from "../router";
import { may } from "../session";
import type { Job } from "../timeline";
import { DoingBadge } from "./connections";

export default function OneConnectionScreen({ number = "" }: { number?: string }) {
  const { data, problem } = useFetched(number, (signal) => connectionOf(Number(number), signal));
  const [isLeaving, setLeaving] = useState(false);
  const last = useRef<Connection | null>(null); // what it was called before it had gone
  last.current = data ?? last.current;
  const hasGone = data === null;
  const shown = data ?? undefined;
  return (
    <>
      <nav class="crumbs small" aria-label="Where this is">
        <a href={to(["connections"])}>Workers and connections</a>
      </nav>
      <PageHead
        title={(last.current && (nameOf(last.current) ?? last.current.host)) || `Connection ${number}`}
        beside={shown && <DoingBadge of={shown} />}
      >
        {shown && canGo(shown) && may("operate") && (
          <button type="button" class="button danger" onClick={() => setLeaving(true)}>
            <Icon name="unplug" />
            Disconnect
          </button>
        )}
      </PageHead>
      {hasGone ? (
        <div class="card">
          <EmptyState icon="workers" title="This connection has gone">
            It was closed, or never was. Who comes again has another number.{" "}
            <a href={to(["connections"])}>All workers</a>
          </EmptyState>
        </div>
      ) : (
        <ProblemNote problem={problem} />
      )}
      {shown && <Known of={shown} />}
      {isLeaving && shown && (
        <Disconnect
          of={shown}
          close={(isDone) => {
            setLeaving(false);
            if (isDone) go(to(["connections"]));
          }}
        />
      )}
    </>
  );
}

function Known({ of }: { of: Connection }) {
  const rates = useDoneRates(useMemo(() => [of], [of]));
  const { functions, function_count, running } = of;
  const rest = function_count - functions.length;
  const { data: jobs } = useFetched(running.join(" "), (signal) => jobsOf(running, signal));
  return (
    <div class="charts fresh">
      <section class="card">
        <div class="card-head">
          <h2>The connection</h2>
        </div>
        <div class="card-body stack">
          <p>{doingOf(of).meaning}.</p>
          <KeyValue
            rows={[
              ["Host", of.host],
              ["Since", <span title={exactTime(of.since)}>{time(of.since)}</span>],
              ["Last packet", ago(of.silent)],
              ["Jobs done", count(of.jobs_done)],
              ["Jobs a second", rate(rates.of(of.number))],
              ["Number", <span class="mono">{of.number}</span>],
            ]}
          />
        </div>
      </section>
      <div class="stack top">
        <section class="card">
          <div class="card-head">
            <h2>Runs</h2>
            {running.length > 0 && <span class="muted small end">{plural(running.length, "job")}</span>}
          </div>
          {running.length ? (
            <ul class="rows">
              {running.map((handle) => (
                <li key={handle} class="bar">
                  <a href={to(["jobs", handle])}>{handle}</a>
                  <About job={jobs?.get(handle)} />
                </li>
              ))}
            </ul>
          ) : (
            <p class="card-body muted">No job now</p>
          )}
        </section>
        <section class="card">
          <div class="card-head">
            <h2>Can do</h2>
            {function_count > 0 && <span class="muted small end">{plural(function_count, "function")}</span>}
          </div>
          {functions.length ? (
            <p class="card-body list">
              {functions.map((name) => (
                <a key={name} href={to(["functions", name])}>
                  {name}
                </a>
              ))}
              {rest > 0 && <span class="muted">and {plural(rest, "other")}</span>}
            </p>
          ) : (
            <p class="card-body muted">Nothing: it is no worker</p>
          )}
        </section>
      </div>
    </div>
  );
}

/** The connection of this number; null: it has gone, or never was. */
async function connectionOf(number: number, signal: AbortSignal): Promise<Connection | null> {
  if (!Number.isSafeInteger(number) || number < 1) return null;
  const query = { after: number - 1, limit: 1 }; // the list refuses none, which a browser's console would tell as an error
  const { connections } = await get("/api/v1/connections", { query, signal });
  return connections.find((each) => each.number === number) ?? null;
}

/** How far a job is. */
function About({ job }: { job: Job | undefined }) {
  if (job?.state !== "running") return null;
  return (
    <>
      <span>{job.function}</span>
      <span class="muted small end">
        {job.progress && `${percent(job.progress.numerator / job.progress.denominator)}, `}
        {job.running_since && `for ${duration(Math.max(Date.now() / 1000 - job.running_since, 0))}`}
      </span>
    </>
  );
}

/** Its jobs, by their handles; one that has ended meanwhile is left out. */
async function jobsOf(handles: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, Job>> {
  const found = new Map<string, Job>();
  for (const handle of handles) {
    const job = await jobOf(handle, signal);
    if (job) found.set(handle, job);
  }
  return found;
}
