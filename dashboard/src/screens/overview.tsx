/** The first screen: how the job server is, what it does, and what somebody should look at. */
import { BigNumber, coloured, EmptyState, PageHead, ProblemNote, type State } from "../components/basics";
import { Charts, SpanTabs, spanFromQuery } from "../components/charts";
import { Icon } from "../components/icons";
import { useCurves } from "../fetching";
import { count, duration, percent, rate, time } from "../format";
import { type Curves, sum, type Values } from "../history";
import { type Overview, overview, type Wrong } from "../live";
import { to } from "../router";

export default function OverviewScreen() {
  const span = spanFromQuery();
  const { curves, problem } = useCurves(span);
  const told = overview.value;
  const isNew = told !== null && !told.functions && !told.workers.able;
  return (
    <>
      <PageHead title="Overview">
        <SpanTabs />
      </PageHead>
      <ProblemNote problem={problem} />
      <div class="overview fresh">
        <Numbers told={told} curves={curves} />
        <WrongNow told={told} />
        {isNew ? (
          <section class="card charts-none">
            <EmptyState icon="workers" title="No workers and no jobs yet" command="geartrain work reverse -- rev">
              A worker says what it can do, and jobs come to it. This one reverses lines; submit a job to it with{" "}
              <code>geartrain submit reverse hello</code>.
            </EmptyState>
          </section>
        ) : (
          <Charts curves={curves} />
        )}
      </div>
    </>
  );
}

function Numbers({ told, curves }: { told: Overview | null; curves: Curves | undefined }) {
  const series = curves?.series ?? {};
  const out = sum(series["completed"], series["failed"]);
  const rates = told?.rates;
  const ended = rates ? rates.completed + rates.failed : 0;
  const failing = rates ? (ended ? rates.failed / ended : 0) : null;
  const busy = told?.workers.able ? told.workers.busy / told.workers.able : null;
  return (
    <section class="numbers" aria-label="Numbers">
      <BigNumber
        label="Jobs in"
        value={rate(rates?.submitted)}
        beside="a second"
        state="queued"
        values={series["submitted"]}
        href={to(["functions"])}
      />
      <BigNumber
        label="Jobs out"
        value={rate(rates && ended)}
        beside="a second"
        state="completed"
        values={out}
        href={to(["functions"])}
      />
      <BigNumber
        label="Failing"
        value={percent(failing)}
        beside="of jobs out"
        state="failed"
        values={share(series["failed"], out)}
        alarming={Boolean(failing && failing >= 0.05)}
        href={to(["jobs"], { attempt: "1" })}
      />
      <BigNumber
        label="Running"
        value={count(told?.running)}
        beside={told?.delayed ? `${count(told.delayed)} delayed` : undefined}
        state="running"
        values={series["running"]}
        href={to(["jobs"], { state: "running" })}
      />
      <BigNumber
        label="Waiting"
        value={count(told?.waiting)}
        beside="jobs"
        state="queued"
        values={series["waiting"]}
        href={to(["jobs"], { state: "queued" })}
      />
      <BigNumber
        label="Oldest waiting"
        value={told ? duration(told.oldest_waiting) : duration(null)}
        state="delayed"
        values={series["oldest"]}
        href={to(["jobs"], { state: "queued", order: "oldest" })}
      />
      <BigNumber
        label="Workers busy"
        value={count(told?.workers.busy)}
        beside={told ? `of ${count(told.workers.able)}${busy === null ? "" : `, ${percent(busy)}`}` : undefined}
        state="running"
        values={series["busy"]}
        href={to(["connections"])}
      />
      <BigNumber
        label="Dead letters"
        value={count(told?.dead)}
        state="dead"
        values={series["dead"]}
        alarming={Boolean(told?.dead)}
        href={to(["dead"])}
      />
    </section>
  );
}

function share(part: Values | undefined, whole: Values | undefined): Values | undefined {
  return whole?.map((all, at) => (all === null ? null : all ? (part?.[at] ?? 0) / all : 0));
}

const KINDS: Record<Wrong["kind"], [string, State]> = {
  lease_lapsed: ["Lease lapsed", "failed"],
  store_down: ["Store down", "failed"],
  memory_short: ["Memory short", "failed"],
  draining: ["About to stop", "retried"],
  no_worker: ["No worker", "failed"],
  queue_full: ["Queue full", "failed"],
  stuck: ["Perhaps stuck", "retried"],
  retry_storm: ["Many retries", "retried"],
  dead_growing: ["Dead letters grow", "dead"],
  paused_with_jobs: ["Paused", "paused"],
};

function WrongNow({ told }: { told: Overview | null }) {
  return (
    <section class="card wrongs" aria-labelledby="wrong">
      <div class="card-head">
        <h2 id="wrong">What is wrong now</h2>
      </div>
      {told && !told.wrong.length ? (
        <p class="all-well">
          <Icon name="check" /> Nothing that somebody should look at
        </p>
      ) : (
        <ul>
          {told?.wrong.map((wrong) => (
            <Item key={`${wrong.kind} ${wrong.function}`} wrong={wrong} />
          ))}
        </ul>
      )}
      {told && told.more > 0 && <p class="card-body muted">and {count(told.more)} more</p>}
    </section>
  );
}

function Item({ wrong }: { wrong: Wrong }) {
  const [title, state] = KINDS[wrong.kind];
  return (
    <li style={coloured(state)}>
      <div class="kind">
        <span class="badge">{title}</span>
        <span class="muted">{wrong.since ? `since ${time(wrong.since)}` : ""}</span>
      </div>
      <p class="text">{wrong.text}</p>
      <a href={wrong.remedy.path}>{wrong.remedy.text}</a>
    </li>
  );
}
