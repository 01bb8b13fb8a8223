/** Who is connected: workers, what they can do and do, and all others. */
import { useState } from "preact/hooks";
import { get } from "../api/client";
import { Badge, EmptyState, PageHead, Tabs } from "../components/basics";
import { Disconnect } from "../components/disconnect";
import { FunctionFilter } from "../components/filters";
import { Icon } from "../components/icons";
import { type Column, Table } from "../components/table";
import { type Connection, canGo, type DoneRates, doingOf, nameOf, useDoneRates } from "../connections";
import { useFetched } from "../fetching";
import { ago, count, exactTime, NOTHING, plural, quoted, rate, time } from "../format";
import { overview } from "../live";
import { fromQuery, setQuery, to } from "../router";
import { may } from "../session";

const PAGE = 50;
const SHOWN_FUNCTIONS = 2;
const SHOWN_JOBS = 1;

export default function ConnectionsScreen() {
  const show = fromQuery("show", "workers", ["workers", "all"]);
  const isAll = show === "all";
  const name = isAll ? "" : fromQuery("function", "");
  const after = fromQuery("after", "");
  const query = { after: Number(after), limit: PAGE };
  const { data, problem, again } = useFetched(JSON.stringify([show, name, query]), (signal) =>
    isAll
      ? get("/api/v1/connections", { query, signal })
      : get("/api/v1/workers", { query: { ...query, function: name || undefined }, signal }),
  );
  const rates = useDoneRates(data?.connections);
  const [leaving, setLeaving] = useState<Connection | null>(null);
  return (
    <>
      <PageHead title="Workers and connections" beside={<Tally />}>
        {!isAll && <FunctionFilter value={name} change={(given) => setQuery({ function: given, after: "" })} />}
        <Tabs
          label="Which"
          options={[
            ["workers", "Workers"],
            ["all", "All connections"],
          ]}
          picked={show}
          pick={(picked) => setQuery({ show: picked === "workers" ? "" : picked, function: "", after: "" })}
        />
      </PageHead>
      <div class="connections">
        <Table
          label={isAll ? "Connections" : "Workers"}
          columns={columnsOf(rates, setLeaving)}
          rows={data?.connections}
          keyOf={(row) => String(row.number)}
          problem={problem}
          next={data?.next}
          empty={<Empty name={name} isAll={isAll} />}
        />
      </div>
      {leaving && (
        <Disconnect
          of={leaving}
          close={(isDone) => {
            setLeaving(null);
            if (isDone) again();
          }}
        />
      )}
    </>
  );
}

/** How many there are, all together. */
function Tally() {
  const told = overview.value;
  if (!told) return null;
  return (
    <span class="muted fresh">
      {plural(told.workers.able, "worker")}, {count(told.workers.busy)} busy; {plural(told.connections, "connection")}
    </span>
  );
}

function Empty({ name, isAll }: { name: string; isAll: boolean }) {
  if (isAll) return <EmptyState icon="workers" title="Nobody is connected" command="geartrain status" />;
  if (name) {
    return (
      <EmptyState icon="workers" title={`No worker can do ${name}`} command={`geartrain work ${quoted(name)} -- cat`}>
        Its jobs wait until one comes. This begins one that answers with what it is given.{" "}
        <a href={to(["connections"])}>All workers</a>
      </EmptyState>
    );
  }
  return (
    <EmptyState icon="workers" title="No workers yet" command="geartrain work reverse -- rev">
      A worker connects, says which functions it can do, and is handed their jobs. This begins one: a shell command that
      turns lines round.
    </EmptyState>
  );
}

function columnsOf(rates: DoneRates, leave: (row: Connection) => void): Column<Connection>[] {
  const columns: Column<Connection>[] = [
    {
      title: "Name",
      isMain: true,
      cell: (row) => (
        <>
          <a href={to(["connections", String(row.number)])}>
            {nameOf(row) ?? <span class="muted">without a name</span>}
          </a>
          <span class="beneath small muted">{row.host}</span>
        </>
      ),
    },
    { title: "State", cell: (row) => <DoingBadge of={row} /> },
    { title: "Runs", room: "second", cell: (row) => <Running of={row} /> },
    { title: "Can do", room: "second", cell: (row) => <Abilities of={row} /> },
    {
      title: "Jobs done",
      isNumber: true,
      cell: (row) => <span class={row.jobs_done ? "" : "zero"}>{count(row.jobs_done)}</span>,
    },
    { title: "A second", isNumber: true, room: "third", cell: (row) => <Rate value={rates.of(row.number)} /> },
    {
      title: "Since",
      isNumber: true,
      room: "second",
      cell: (row) => <span title={exactTime(row.since)}>{time(row.since)}</span>,
    },
    { title: "Last packet", isNumber: true, room: "third", cell: (row) => ago(row.silent) },
  ];
  if (may("operate")) {
    columns.push({
      title: "",
      isNumber: true,
      cell: (row) =>
        canGo(row) && (
          <button
            type="button"
            class="button bare"
            title="Disconnect"
            aria-label={`Disconnect ${nameOf(row) ?? "a connection"} at ${row.host}`}
            onClick={() => leave(row)}
          >
            <Icon name="unplug" />
          </button>
        ),
    });
  }
  return columns;
}

export function DoingBadge({ of }: { of: Connection }) {
  const { word, state, meaning } = doingOf(of);
  return (
    <span title={meaning}>
      <Badge state={state}>{word}</Badge>
    </span>
  );
}

function Rate({ value }: { value: number | null }) {
  return <span class={value ? "" : "zero"}>{rate(value)}</span>;
}

function Running({ of: { running } }: { of: Connection }) {
  if (!running.length) return <span class="zero">{NOTHING}</span>;
  return (
    <span class="list">
      {running.slice(0, SHOWN_JOBS).map((handle) => (
        <a key={handle} href={to(["jobs", handle])}>
          {handle}
        </a>
      ))}
      {running.length > SHOWN_JOBS && <span class="muted">+{count(running.length - SHOWN_JOBS)}</span>}
    </span>
  );
}

function Abilities({ of: { functions, function_count } }: { of: Connection }) {
  if (!functions.length) return <span class="zero">{NOTHING}</span>;
  const rest = function_count - Math.min(functions.length, SHOWN_FUNCTIONS);
  return (
    <span class="list">
      {functions.slice(0, SHOWN_FUNCTIONS).map((name) => (
        <a key={name} class="plain" href={to(["functions", name])}>
          {name}
        </a>
      ))}
      {rest > 0 && <span class="muted">+{count(rest)}</span>}
    </span>
  );
}
