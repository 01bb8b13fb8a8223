/** All functions: what waits and runs, how fast it goes, and when it will be done. */
import { get, patch, type Schemas } from "../api/client";
import { Badge, EmptyState, PageHead, Search, Sparkline } from "../components/basics";
import { Icon } from "../components/icons";
import { type Column, Table } from "../components/table";
import { attempt } from "../components/toast";
import { useFetched } from "../fetching";
import { count, duration, NOTHING, rate } from "../format";
import { type Pace, timeToDrain, usePaces } from "../rates";
import { fromQuery, setQuery, to } from "../router";
import { may } from "../session";

type Row = Schemas["FunctionRow"];
const SORTS = ["name", "waiting", "oldest_waiting", "running", "workers", "dead"] as const;
const PAGE = 50;

export const waitingOf = ({ queued, blocked }: Row) => queued.high + queued.normal + queued.low + blocked;

export default function FunctionsScreen() {
  const prefix = fromQuery("q", "");
  const sort = fromQuery("sort", "name", SORTS);
  const after = fromQuery("after", "");
  const query = { prefix, sort, after, limit: PAGE };
  const { data, problem, again } = useFetched(JSON.stringify(query), (signal) =>
    get("/api/v1/functions", { query, signal }),
  );
  const paces = usePaces(data?.functions);
  return (
    <>
      <PageHead title="Functions">
        <Search label="Begins with" value={prefix} change={(value) => setQuery({ q: value, after: "" })} />
      </PageHead>
      <Table
        label="Functions"
        columns={columnsOf(paces, again)}
        rows={data?.functions}
        keyOf={(row) => row.name}
        problem={problem}
        next={data?.next}
        defaultSort="name"
        empty={
          prefix ? (
            <EmptyState icon="search" title={`No function begins with “${prefix}”`} />
          ) : (
            <EmptyState icon="functions" title="No functions yet" command="geartrain work reverse -- rev">
              A function is known as soon as a worker can do it, or a job of it is submitted.
            </EmptyState>
          )
        }
      />
    </>
  );
}

function columnsOf(paces: ReadonlyMap<string, Pace>, again: () => void): Column<Row>[] {
  const columns: Column<Row>[] = [
    {
      title: "Function",
      sort: "name",
      order: "ascending",
      isMain: true,
      cell: (row) => (
        <>
          <a href={to(["functions", row.name])}>{row.name}</a> <Marks row={row} />
        </>
      ),
    },
    { title: "Waiting", sort: "waiting", isNumber: true, cell: (row) => <Count value={waitingOf(row)} /> },
    { title: "Oldest", sort: "oldest_waiting", isNumber: true, room: "second", cell: (row) => <Oldest row={row} /> },
    { title: "Running", sort: "running", isNumber: true, cell: (row) => <Count value={row.running} /> },
    { title: "Delayed", isNumber: true, room: "third", cell: (row) => <Count value={row.delayed} /> },
    { title: "Workers", sort: "workers", isNumber: true, room: "second", cell: (row) => <Count value={row.workers} /> },
    { title: "Out a second", isNumber: true, room: "second", cell: (row) => rate(paces.get(row.name)?.out) },
    {
      title: "Last 15 minutes",
      room: "third",
      cell: (row) => <Sparkline values={paces.get(row.name)?.curve} />,
    },
    {
      title: "Time to drain",
      isNumber: true,
      room: "second",
      cell: (row) => <Drain seconds={timeToDrain(waitingOf(row), paces.get(row.name))} />,
    },
    { title: "Dead", sort: "dead", isNumber: true, room: "second", cell: (row) => <Count value={row.dead} /> },
  ];
  if (may("operate")) {
    columns.push({ title: "", isNumber: true, cell: (row) => <PauseButton row={row} again={again} isBare /> });
  }
  return columns;
}

/** What is special about a function, in badges. */
export function Marks({ row }: { row: Row }) {
  return (
    <>
      {row.paused && <Badge state="paused">paused</Badge>}
      {!row.workers && waitingOf(row) > 0 && <Badge state="failed">no worker</Badge>}
    </>
  );
}

function Count({ value }: { value: number }) {
  return <span class={value ? "" : "zero"}>{count(value)}</span>;
}

function Oldest({ row }: { row: Row }) {
  return row.oldest_waiting ? <span>{duration(row.oldest_waiting)}</span> : <span class="zero">{NOTHING}</span>;
}

export function Drain({ seconds }: { seconds: number | null }) {
  if (seconds === null || seconds === 0) return <span class="zero">{NOTHING}</span>;
  return Number.isFinite(seconds) ? <span>{duration(seconds)}</span> : <Badge state="retried">growing</Badge>;
}

export function PauseButton({ row, again, isBare }: { row: Row; again: () => void; isBare?: boolean }) {
  const run = async () => {
    const path = { name: row.name };
    await attempt(
      () => patch("/api/v1/functions/{name}", { path, body: { paused: !row.paused, reason: "" } }),
      row.paused ? `${row.name} goes on` : `${row.name} is paused: what runs ends, and nothing else begins`,
    );
    again();
  };
  const label = row.paused ? "Resume" : "Pause";
  return (
    <button
      type="button"
      class={isBare ? "button bare" : "button"}
      onClick={run}
      aria-label={`${label} ${row.name}`}
      title={`${label} ${row.name}`}
    >
      <Icon name={row.paused ? "resume" : "pause"} />
      {!isBare && label}
    </button>
  );
}
