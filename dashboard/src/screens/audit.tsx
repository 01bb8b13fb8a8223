/** Who has done what: the last actions that changed something, and the requests that were refused. */
import { get, type Schemas } from "../api/client";
import { Badge, EmptyState, PageHead } from "../components/basics";
import { type Column, Table } from "../components/table";
import { useFetched } from "../fetching";
import { exactTime, NOTHING, time } from "../format";
import { fromQuery, setQuery, to } from "../router";
import { may } from "../session";

type Entry = Schemas["AuditEntry"];
const PAGE = 50;

export default function AuditScreen() {
  if (may("operate")) return <Audit />;
  return (
    <>
      <PageHead title="Audit" />
      <div class="card">
        <EmptyState icon="audit" title="For operators">
          Who has done what is shown to those whose token has the role <code>operate</code>.
        </EmptyState>
      </div>
    </>
  );
}

function Audit() {
  const who = fromQuery("who", "");
  const action = fromQuery("action", "");
  const after = fromQuery("after", "");
  const query = { who: who || null, action: action || null, after: after ? Number(after) : null, limit: PAGE };
  const { data, problem } = useFetched(JSON.stringify(query), (signal) => get("/api/v1/audit", { query, signal }));
  const isChosen = Boolean(who || action);
  return (
    <>
      <PageHead title="Audit">
        <Filter label="Who" name="who" value={who} />
        <Filter label="Action begins with" name="action" value={action} />
        {isChosen && (
          <button type="button" class="button bare" onClick={() => setQuery({ who: "", action: "", after: "" })}>
            Show all
          </button>
        )}
      </PageHead>
      <Table
        label="Actions"
        columns={COLUMNS}
        rows={data?.entries}
        keyOf={(entry) => String(entry.number)}
        problem={problem}
        next={data?.next}
        empty={
          isChosen ? (
            <EmptyState icon="search" title="No such action">
              Names are compared as a whole. The last 1,000 actions are known, and as many requests that were refused.
            </EmptyState>
          ) : (
            <EmptyState icon="audit" title="Nothing has been done yet">
              What somebody changes here, by the API or by a command stands here until the job server is restarted. With{" "}
              <code>--http-audit</code> it is written to a file as well.
            </EmptyState>
          )
        }
      />
    </>
  );
}

function Filter({ label, name, value }: { label: string; name: string; value: string }) {
  return (
    <input
      class="input filter"
      type="search"
      aria-label={label}
      placeholder={label}
      autocomplete="off"
      spellcheck={false}
      value={value}
      onInput={(event) => setQuery({ [name]: event.currentTarget.value.trim(), after: "" })}
    />
  );
}

const COLUMNS: readonly Column<Entry>[] = [
  {
    title: "When",
    cell: (entry) => (
      <span title={exactTime(entry.time)}>
        {time(entry.time)} <span class="only-phone muted">{entry.who}</span>
      </span>
    ),
  },
  {
    title: "Who",
    isMain: true,
    room: "second",
    cell: (entry) => (
      <a class="nowrap" href={to(["audit"], { who: entry.who })} title={`All that ${entry.who} has done`}>
        {entry.who}
      </a>
    ),
  },
  {
    title: "Action",
    cell: (entry) => (
      <span class="wraps">
        {entry.action} <span class="only-phone muted">{entry.target}</span>
      </span>
    ),
  },
  { title: "Target", room: "second", cell: (entry) => <Target entry={entry} /> },
  {
    title: "Outcome",
    cell: ({ outcome }) => <Badge state={outcome === "done" ? "completed" : "failed"}>{outcome}</Badge>,
  },
  { title: "From", room: "third", cell: (entry) => entry.host },
  {
    title: "By",
    room: "third",
    cell: (entry) => <span class="muted">{entry.via === "http" ? "HTTP" : "Gearman"}</span>,
  },
];

/** The screen of what an action was for, by the action's last word. */
const SCREENS: Record<string, (target: string) => string> = {
  job: (target) => to(["jobs", target]),
  priority: (target) => to(["jobs", target]),
  function: (target) => to(["functions", target]),
  policy: (target) => to(["functions", target]),
  schedule: (target) => to(["schedules"], { show: target }),
};

function Target({ entry: { action, target } }: { entry: Entry }) {
  if (!target) return <span class="zero">{NOTHING}</span>;
  const screen = SCREENS[action.split(" ").at(-1) ?? ""];
  return screen ? <a href={screen(target)}>{target}</a> : <span>{target}</span>;
}
