/** One dead letter: why it was given up, each of its attempts, and its payload. */
import { useState } from "preact/hooks";
import { EmptyState, KeyValue, PageHead, ProblemNote } from "../components/basics";
import { Icon } from "../components/icons";
import { PurgeLetters, ReasonBadge, retryOne } from "../components/letters";
import { lineOf, REASONS, type Reason } from "../dead";
import { useFetched } from "../fetching";
import { bytes, count, exactTime, NOTHING, time } from "../format";
import { jobOf } from "../jobs";
import { go, to } from "../router";
import { may } from "../session";
import type { Job } from "../timeline";
import { Attempts, Payload } from "./job";

export default function LetterScreen({ handle = "" }: { handle?: string }) {
  const { data: job, problem, again } = useFetched(handle, (signal) => jobOf(handle, signal));
  const [isPurging, setPurging] = useState(false);
  const isDead = job?.state === "dead";
  const hasGone = job === null;
  return (
    <>
      <nav class="crumbs small" aria-label="Where this is">
        <a href={to(["dead"])}>Dead letters</a>
        {job && <a href={to(["dead"], { function: job.function })}>{job.function}</a>}
      </nav>
      <PageHead title={handle} beside={job?.reason && isDead ? <ReasonBadge reason={job.reason} /> : undefined}>
        {isDead && !hasGone && (
          <>
            <a class="button" href={to(["jobs", handle])}>
              Time line
            </a>
            {may("operate") && (
              <>
                <button type="button" class="button" onClick={() => void retryOne(handle).then(again)}>
                  <Icon name="retry" />
                  Try again
                </button>
                <button type="button" class="button danger" onClick={() => setPurging(true)}>
                  <Icon name="trash" />
                  Purge
                </button>
              </>
            )}
          </>
        )}
      </PageHead>
      {hasGone ? (
        <div class="card">
          <EmptyState icon="dead" title="There is no such dead letter">
            It was purged, kept for as long as the policy says, or never was.{" "}
            <a href={to(["dead"])}>All dead letters</a>
          </EmptyState>
        </div>
      ) : (
        <ProblemNote problem={problem} />
      )}
      {job && !isDead && !hasGone && <Alive job={job} />}
      {job && isDead && !hasGone && (
        <div class="stack fresh">
          <div class="charts letter">
            <Why job={job} />
            <About job={job} />
          </div>
          <Attempts job={job} />
          <Payload job={job} />
        </div>
      )}
      {isPurging && (
        <PurgeLetters
          meant={{ handles: [handle] }}
          close={(isDone) => {
            setPurging(false);
            if (isDone) go(to(["dead"]));
          }}
        />
      )}
    </>
  );
}

/** It has been tried again meanwhile. */
function Alive({ job }: { job: Job }) {
  return (
    <div class="card">
      <EmptyState icon="check" title="It is no dead letter any more">
        The job is {job.state} now. <a href={to(["jobs", job.handle])}>Look at the job</a> or at{" "}
        <a href={to(["dead"])}>all dead letters</a>
      </EmptyState>
    </div>
  );
}

function Why({ job }: { job: Job }) {
  const meaning = REASONS[job.reason as Reason] ?? job.reason;
  return (
    <section class="card">
      <div class="card-head">
        <h2>Why it was given up</h2>
      </div>
      <div class="card-body stack">
        <p>
          After {count(job.attempts)}
          {job.max_attempts ? ` of ${count(job.max_attempts)}` : ""} {job.attempts === 1 ? "attempt" : "attempts"}:{" "}
          {meaning}.
        </p>
        {job.text ? <p class="mono said">{lineOf(job.text)}</p> : <p class="muted">Nothing was said about it.</p>}
      </div>
    </section>
  );
}

function About({ job }: { job: Job }) {
  return (
    <section class="card">
      <div class="card-head">
        <h2>The job</h2>
      </div>
      <div class="card-body">
        <KeyValue
          rows={[
            ["Function", <a href={to(["functions", job.function])}>{job.function}</a>],
            ["Unique", job.unique || NOTHING],
            ["Priority", `${job.priority}${job.background ? ", in the background" : ""}`],
            ["Submitted", <When at={job.created} />],
            ["Died", <When at={job.died} />],
            ["Payload", bytes(job.size)],
          ]}
        />
      </div>
    </section>
  );
}

function When({ at }: { at: number | null }) {
  return <span title={exactTime(at)}>{time(at)}</span>;
}
