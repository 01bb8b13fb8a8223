/** One function: its curves, how long its jobs run, with what they fail, its workers and its latest jobs. */
import { useMemo, useState } from "preact/hooks";
import { get, type Problem, type Schemas } from "../api/client";
import { Badge, BigNumber, EmptyState, KeyValue, PageHead, ProblemNote, type State } from "../components/basics";
import { Charts, SpanTabs, spanFromQuery } from "../components/charts";
import { HeatMap } from "../components/heat";
import { Icon } from "../components/icons";
import { PolicyDialog, policyOf } from "../components/policy";
import { Purge } from "../components/purge";
import { lineOf } from "../dead";
import { useCurves, useFetched } from "../fetching";
import { count, duration, exactTime, percent, plural, quoted, rate, time } from "../format";
import { type Span, sum } from "../history";
import { timeToDrain, usePaces } from "../rates";
import { to } from "../router";
import { may } from "../session";
import { Marks, PauseButton, waitingOf } from "./functions";

type Policy = Schemas["Policy"];
type Row = Schemas["FunctionRow"];
type Ended = Schemas["EndedRow"];
type Told = Schemas["Latest"];

const NO_POLICY = Promise.resolve(null);

export default function FunctionScreen({ name = "" }: { name?: string }) {
  const path = { name };
  const { data: row, problem, again } = useFetched(name, (signal) => get("/api/v1/functions/{name}", { path, signal }));
  if (problem?.status === 404) return <Unknown name={name} />;
  if (row) return <Known row={row} problem={problem} again={again} />;
  return (
    <>
      <Crumbs />
      <PageHead title={name} />
      <ProblemNote problem={problem} />
    </>
  );
}

function Crumbs() {
  return (
    <nav class="crumbs small" aria-label="Where this is">
      <a href={to(["functions"])}>Functions</a>
    </nav>
  );
}

function Known({ row, problem, again }: { row: Row; problem: Problem | null; again: () => void }) {
  const { name } = row;
  const path = { name };
  const span = spanFromQuery();
  const { curves } = useCurves(span, name);
  const [opened, setOpened] = useState<"purge" | { policy: Policy | null } | null>(null);
  const policy = useFetched(
    `${name} ${row.policy}`,
    (signal) => (row.policy ? policyOf(name, signal) : NO_POLICY),
    60_000,
  );
  const { data: latest } = useFetched(`latest ${name}`, (signal) =>
    get("/api/v1/functions/{name}/latest", { path, signal }),
  );
  const close = (isDone: boolean) => {
    setOpened(null);
    if (!isDone) return;
    again();
    policy.again();
  };
  return (
    <>
      <Crumbs />
      <PageHead title={name} beside={<Marks row={row} />}>
        {may("operate") && (
          <>
            <PauseButton row={row} again={again} />
            <button type="button" class="button" onClick={() => setOpened({ policy: policy.data ?? null })}>
              <Icon name="edit" />
              Policy
            </button>
            <button type="button" class="button danger" onClick={() => setOpened("purge")}>
              <Icon name="trash" />
              Purge
            </button>
          </>
        )}
      </PageHead>
      <ProblemNote problem={problem} />
      <div class="stack fresh">
        <Numbers row={row} curves={curves?.series} />
        <div class="bar">
          <SpanTabs />
        </div>
        <Charts curves={curves} />
        <Heat name={name} span={span} />
        <div class="charts">
          <Errors told={latest} />
          <section class="card">
            <div class="card-head">
              <h2>Policy</h2>
            </div>
            <div class="card-body">
              {policy.data ? (
                <>
                  {policy.data.name !== name && (
                    <p class="muted small">
                      By <code>{policy.data.name}</code>
                    </p>
                  )}
                  <KeyValue
                    rows={Object.entries(policy.data.keys).map(([key, value]) => [key, <code>{value}</code>])}
                  />
                </>
              ) : (
                <p class="muted">No policy: a job that fails has failed, and nothing limits how many run.</p>
              )}
            </div>
          </section>
        </div>
        <Latest told={latest} />
        <Workers name={name} row={row} />
      </div>
      {opened === "purge" && <Purge name={name} close={close} />}
      {opened !== null && opened !== "purge" && <PolicyDialog name={name} policy={opened.policy} close={close} />}
    </>
  );
}

function Unknown({ name }: { name: string }) {
  return (
    <>
      <PageHead title={name} />
      <div class="card">
        <EmptyState
          icon="functions"
          title="This function is not known"
          command={`geartrain work ${quoted(name)} -- cat`}
        >
          It becomes known when a worker can do it, or a job of it is submitted. The job server forgets functions that
          nobody has used for long. <a href={to(["functions"])}>All functions</a>
        </EmptyState>
      </div>
    </>
  );
}

function Numbers({ row, curves = {} }: { row: Row; curves?: Record<string, (number | null)[]> | undefined }) {
  const pace = usePaces(useMemo(() => [row], [row])).get(row.name);
  const waiting = waitingOf(row);
  const drain = timeToDrain(waiting, pace);
  const { counters } = row;
  const ended = (counters["completed"] ?? 0) + (counters["failed"] ?? 0);
  return (
    <section class="numbers" aria-label="Numbers">
      <BigNumber
        label="Jobs in"
        value={rate(pace?.into)}
        beside="a second"
        state="queued"
        values={curves["submitted"]}
      />
      <BigNumber
        label="Jobs out"
        value={rate(pace?.out)}
        beside="a second"
        state="completed"
        values={sum(curves["completed"], curves["failed"])}
      />
      <BigNumber
        label="Failed"
        value={count(counters["failed"])}
        beside={ended ? `${percent((counters["failed"] ?? 0) / ended)} since start` : undefined}
        state="failed"
        values={curves["failed"]}
      />
      <BigNumber
        label="Running"
        value={count(row.running)}
        state="running"
        values={curves["running"]}
        href={to(["jobs"], { function: row.name, state: "running" })}
      />
      <BigNumber
        label="Waiting"
        value={count(waiting)}
        beside={row.delayed ? `${count(row.delayed)} delayed` : undefined}
        state="queued"
        values={curves["waiting"]}
        href={to(["jobs"], { function: row.name, state: "queued" })}
      />
      <BigNumber
        label="Oldest waiting"
        value={duration(row.oldest_waiting)}
        beside={
          drain === null || drain === 0
            ? undefined
            : Number.isFinite(drain)
              ? `drained in ${duration(drain)}`
              : "growing"
        }
        state="delayed"
        values={curves["oldest"]}
        href={to(["jobs"], { function: row.name, state: "queued", order: "oldest" })}
      />
      <BigNumber
        label="Workers"
        value={count(row.workers)}
        beside={`${count(row.idle)} idle`}
        state="running"
        values={curves["workers"]}
        alarming={Boolean(!row.workers && waiting)}
        href={to(["connections"], { function: row.name })}
      />
      <BigNumber
        label="Dead letters"
        value={count(row.dead)}
        state="dead"
        values={curves["dead"]}
        alarming={Boolean(row.dead)}
        href={to(["dead"], { function: row.name })}
      />
    </section>
  );
}

function Heat({ name, span }: { name: string; span: Span }) {
  const query = { function: name, span, points: 120 };
  const { data } = useFetched(
    JSON.stringify(query),
    (signal) => get("/api/v1/history/heat", { query, signal }),
    10_000,
  );
  return <HeatMap title="How long jobs run" told={data} />;
}

const OUTCOMES: Record<string, State> = {
  completed: "completed",
  cancelled: "paused",
  abandoned: "paused",
  dropped: "paused",
  expired: "retried",
  retry: "retried",
};

function Outcome({ state }: { state: string }) {
  return <Badge state={OUTCOMES[state] ?? "failed"}>{state}</Badge>;
}

function Errors({ told }: { told: Told | undefined }) {
  return (
    <section class="card">
      <div class="card-head">
        <h2>Errors</h2>
        {told && told.failures > 0 && (
          <span class="muted small end">of {plural(told.failures, "failure")} looked at</span>
        )}
      </div>
      {told && !told.errors.length ? (
        <p class="all-well">
          <Icon name="check" /> No job has failed lately
        </p>
      ) : (
        <ul class="rows">
          {told?.errors.map((error) => (
            <li key={`${error.state} ${error.error}`}>
              <div class="bar">
                <Outcome state={error.state} />
                <strong>{count(error.count)}</strong>
                <span class="muted small end" title={exactTime(error.last)}>
                  last {time(error.last)}
                </span>
              </div>
              <a class="mono" href={to(["jobs", error.handle])}>
                {error.error || "The worker said nothing"}
              </a>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Latest({ told }: { told: Told | undefined }) {
  if (told && !told.jobs.length) return null;
  const ran = (job: Ended) => (job.started === null ? null : job.ended - job.started);
  return (
    <section class="card">
      <div class="card-head">
        <h2>Latest jobs</h2>
        <span class="muted small end">a sample of each second</span>
      </div>
      <div class="table-wrap">
        <table aria-label="Latest jobs">
          <thead>
            <tr>
              <th scope="col">Job</th>
              <th scope="col">State</th>
              <th scope="col" class="number-cell">
                Ended
              </th>
              <th scope="col" class="number-cell second">
                Waited
              </th>
              <th scope="col" class="number-cell">
                Ran
              </th>
              <th scope="col" class="second">
                Worker
              </th>
              <th scope="col" class="third">
                Error
              </th>
            </tr>
          </thead>
          <tbody>
            {told?.jobs.slice(0, 15).map((job) => (
              <tr key={job.handle}>
                <td class="main">
                  <a href={to(["jobs", job.handle])}>{job.handle}</a>
                </td>
                <td>
                  <Outcome state={job.state} />
                </td>
                <td class="number-cell">{time(job.ended)}</td>
                <td class="number-cell second">
                  {duration(job.started !== null && job.queued !== null ? job.started - job.queued : null)}
                </td>
                <td class="number-cell">{duration(ran(job))}</td>
                <td class="second">{job.worker ?? ""}</td>
                <td class="third cut">{lineOf(job.error)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Workers({ name, row }: { name: string; row: Row }) {
  const query = { function: name, limit: 10 };
  const { data } = useFetched(JSON.stringify(query), (signal) => get("/api/v1/workers", { query, signal }));
  if (!data) return null;
  if (!data.connections.length) {
    return (
      <section class="card">
        <EmptyState icon="workers" title="No worker can do this now" command={`geartrain work ${quoted(name)} -- cat`}>
          Jobs wait until one comes. In Python a worker registers <code>{name}</code> with <code>@worker.function</code>
          .
        </EmptyState>
      </section>
    );
  }
  return (
    <section class="card">
      <div class="card-head">
        <h2>Workers</h2>
        <span class="muted small end">
          {count(data.connections.length)} of {count(row.workers)}
        </span>
      </div>
      <div class="table-wrap">
        <table aria-label="Workers">
          <thead>
            <tr>
              <th scope="col">Worker</th>
              <th scope="col">Host</th>
              <th scope="col" class="number-cell">
                Running
              </th>
              <th scope="col" class="second">
                Can do
              </th>
            </tr>
          </thead>
          <tbody>
            {data.connections.map((worker) => (
              <tr key={worker.fd}>
                <td class="main">
                  <a href={to(["connections", String(worker.number)])}>
                    {worker.id === "-" ? <span class="muted">without a name</span> : worker.id}
                  </a>
                </td>
                <td>{worker.host}</td>
                <td class="number-cell">{count(worker.running.length)}</td>
                <td class="second cut muted">{worker.functions.join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
