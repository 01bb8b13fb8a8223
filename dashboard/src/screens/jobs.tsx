/** All jobs that wait, run or are dead: a search by whatever is known of them, and what can be done to many at once. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import { Problem, post, remove } from "../api/client";
import { Badge, EmptyState, PageHead, ProblemNote, type State, Tabs } from "../components/basics";
import { Confirm } from "../components/dialog";
import { type Column, Table } from "../components/table";
import { useFetched } from "../fetching";
import { bytes, count, duration, exactTime, NOTHING, percent, plural } from "../format";
import {
  type Action,
  doToMany,
  FILTERS,
  type FilterName,
  type Filters,
  filtersOf,
  inWords,
  isFit,
  JobSearch,
  ORDERS,
  PRIORITIES,
  type Priority,
  type Row,
  STATES,
  shareOf,
  sinceOf,
  suits,
  workerName,
} from "../jobs";
import { overview } from "../live";
import { fromQuery, go, place, setQuery, to } from "../router";
import { may } from "../session";

const LOOKED_AT = 100_000; // jobs for one question, as the job server has it
const MUCH = 100; // jobs, from which on it has to be typed what is done to them

export default function JobsScreen() {
  const filters = filtersOf(place.value.query);
  const order = fromQuery("order", "newest", ORDERS);
  const after = Number(fromQuery("after", "")) || 0;
  const query = { ...filters, order, after };
  const question = JSON.stringify(query);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the question stands for the query
  const search = useMemo(() => new JobSearch(query), [question]);
  const { data, problem, again } = useFetched(question, (signal) => search.find(signal));
  const [picked, setPicked] = useState<ReadonlySet<string>>(NONE);
  const [isAll, setAll] = useState(false);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another question has other rows
  useEffect(() => {
    setPicked(NONE);
    setAll(false);
  }, [question]);
  const rows = data?.jobs;
  const chosen = rows?.filter(({ handle }) => picked.has(handle)) ?? [];
  search.isHeld = chosen.length > 0 || isAll;
  const clear = () => {
    setPicked(NONE);
    setAll(false);
    search.forget();
    again();
  };
  const isSearch = Object.keys(filters).length > 0;
  const pick = (handles: readonly string[], isOn: boolean) => {
    const next = new Set(picked);
    for (const handle of handles) {
      if (isOn) next.add(handle);
      else next.delete(handle);
    }
    setAll(false);
    setPicked(next);
  };
  return (
    <>
      <PageHead title="Jobs">
        <Tabs
          label="Which come first"
          options={[
            ["newest", "Newest first"],
            ["oldest", "Oldest first"],
          ]}
          picked={order}
          pick={(each) => setQuery({ order: each === "newest" ? "" : each, after: "" })}
        />
      </PageHead>
      <div class="stack jobs">
        <SearchFields />
        {may("operate") && (
          <Many rows={rows} chosen={chosen} isAll={isAll} filters={filters} all={() => setAll(true)} clear={clear} />
        )}
        {!data && search.asked.value > 0 && (
          <p class="muted small" role="status">
            Looked through {count(search.asked.value * LOOKED_AT)} jobs so far
          </p>
        )}
        <Table
          label="Jobs"
          columns={columnsOf(rows ?? [], picked, isAll, pick)}
          rows={rows}
          keyOf={(row) => row.handle}
          problem={problem}
          next={data?.next}
          empty={isSearch ? <NotFound handle={filters.handle} /> : <NoJobs />}
        />
      </div>
    </>
  );
}

const NONE: ReadonlySet<string> = new Set();

function NoJobs() {
  return (
    <EmptyState icon="jobs" title="No job waits, runs or is dead" command="echo hello | geartrain submit reverse">
      What has ended is known for a while by its function: look there for the latest jobs.
    </EmptyState>
  );
}

function NotFound({ handle }: { handle: string | undefined }) {
  return (
    <EmptyState icon="search" title="No job is like this">
      Here are jobs that wait, run or are dead.{" "}
      {handle ? (
        <>
          One that has ended may still be known: <a href={to(["jobs", handle])}>look for {handle}</a>.
        </>
      ) : (
        "What has ended is known for a while by its function: look there for the latest jobs."
      )}
    </EmptyState>
  );
}

// ── what is looked for ─────────────────────────────────────────────────────────────────────────────────────────────

const TITLES: Record<string, string> = {
  "": "All",
  ...Object.fromEntries(STATES.map((each) => [each, capital(each)])),
};

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

function SearchFields() {
  const [isOpen, setOpen] = useState(false);
  const state = fromQuery("state", "", STATES as readonly string[]);
  const set = FILTERS.filter((name) => name !== "state" && place.value.query.get(name));
  return (
    <section class="card job-search" aria-label="Search">
      <div class="bar">
        <div class="scrolls">
          <Tabs
            label="State"
            options={["", ...STATES].map((each) => [each, TITLES[each] ?? each] as const)}
            picked={state}
            pick={(each) => setQuery({ state: each, after: "" })}
          />
        </div>
        <button type="button" class="button only-small" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          Filters{set.length ? ` (${set.length})` : ""}
        </button>
        {set.length > 0 && (
          <button
            type="button"
            class="button bare end"
            onClick={() => setQuery({ ...Object.fromEntries(set.map((name) => [name, ""])), after: "" })}
          >
            Clear
          </button>
        )}
      </div>
      <div class={isOpen ? "filters open" : "filters"}>
        <Field name="function" label="Function" hint="resize" />
        <Field
          name="handle"
          label="Handle begins with"
          hint="H:"
          enter={(handle) => go(to(["jobs", handle]), "push")}
        />
        <Field name="unique" label="Unique" hint="order-17" />
        <Field name="older_than" label="Older than" hint="5m" wrong="Write it as 30s, 5m, 2h or 1d" />
        <Field name="attempt" label="Failed attempts" hint="1" wrong="Write a number" />
        <div class="field">
          <label for="priority">Priority</label>
          <select
            id="priority"
            class="input"
            value={fromQuery("priority", "", PRIORITIES as readonly string[])}
            onChange={(event) => setQuery({ priority: event.currentTarget.value, after: "" })}
          >
            <option value="">Any</option>
            {PRIORITIES.map((each) => (
              <option key={each} value={each}>
                {capital(each)}
              </option>
            ))}
          </select>
        </div>
        <Field name="client" label="Client" hint="id or host" />
        <Field name="worker" label="Worker" hint="id or host" />
      </div>
    </section>
  );
}

const PAUSE = 300; // milliseconds without a key, after which is searched

function Field(props: {
  name: FilterName;
  label: string;
  hint: string;
  wrong?: string;
  enter?: (text: string) => void;
}) {
  const { name } = props;
  const id = useId();
  const inQuery = fromQuery(name, "");
  const [text, setText] = useState<string>(inQuery);
  const timer = useRef(0);
  useEffect(() => setText(inQuery), [inQuery]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const isWrong = !isFit(name, text);
  const apply = (value: string) => {
    clearTimeout(timer.current);
    if (value !== inQuery) setQuery({ [name]: value, after: "" });
  };
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      <input
        id={id}
        class="input"
        autocomplete="off"
        spellcheck={false}
        placeholder={props.hint}
        title={isWrong ? props.wrong : undefined}
        aria-invalid={isWrong}
        value={text}
        onInput={(event) => {
          const value = event.currentTarget.value;
          setText(value);
          clearTimeout(timer.current);
          timer.current = window.setTimeout(() => apply(value.trim()), PAUSE);
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter") return;
          apply(text.trim());
          if (text.trim()) props.enter?.(text.trim());
        }}
      />
    </div>
  );
}

// ── the rows ───────────────────────────────────────────────────────────────────────────────────────────────────────

function columnsOf(
  rows: readonly Row[],
  picked: ReadonlySet<string>,
  isAll: boolean,
  pick: (handles: readonly string[], isOn: boolean) => void,
): Column<Row>[] {
  const columns: Column<Row>[] = [
    { title: "Job", isMain: true, cell: (row) => <a href={to(["jobs", row.handle])}>{row.handle}</a> },
    { title: "Function", isCut: true, cell: (row) => <a href={to(["functions", row.function])}>{row.function}</a> },
    { title: "State", cell: (row) => <Standing row={row} /> },
    { title: "Priority", room: "third", cell: (row) => <Calm isCalm={row.priority === "normal"}>{row.priority}</Calm> },
    { title: "Age", isNumber: true, room: "second", cell: (row) => <Since at={row.created} /> },
    { title: "Waits or runs", isNumber: true, room: "second", cell: (row) => <Spell row={row} /> },
    {
      title: "Failed attempts",
      isNumber: true,
      room: "third",
      cell: (row) => <Calm isCalm={!row.attempts}>{count(row.attempts)}</Calm>,
    },
    { title: "Size", isNumber: true, room: "third", cell: (row) => bytes(row.size) },
    {
      title: "Worker",
      isCut: true,
      room: "second",
      cell: (row) => (
        <Calm isCalm={row.worker === null}>
          <span title={row.worker ?? ""}>{workerName(row.worker)}</span>
        </Calm>
      ),
    },
  ];
  if (!may("operate")) return columns;
  const handles = rows.map(({ handle }) => handle);
  const isPage = handles.length > 0 && handles.every((handle) => picked.has(handle));
  const first: Column<Row> = {
    title: "Selected",
    head: (
      <Check
        label="Select all of this page"
        isOn={isAll || isPage}
        isSome={!isPage && handles.some((handle) => picked.has(handle))}
        set={(isOn) => pick(handles, isOn)}
      />
    ),
    cell: ({ handle }) => (
      <Check label={`Select ${handle}`} isOn={isAll || picked.has(handle)} set={(isOn) => pick([handle], isOn)} />
    ),
  };
  return [first, ...columns];
}

function Check(props: { label: string; isOn: boolean; isSome?: boolean; set: (isOn: boolean) => void }) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (input.current) input.current.indeterminate = Boolean(props.isSome);
  }, [props.isSome]);
  return (
    <label class="pick">
      <input
        ref={input}
        type="checkbox"
        aria-label={props.label}
        checked={props.isOn}
        onChange={(event) => props.set(event.currentTarget.checked)}
      />
    </label>
  );
}

function Calm({ isCalm, children }: { isCalm: boolean; children: ComponentChildren }) {
  return <span class={isCalm ? "zero" : ""}>{children}</span>;
}

function Standing({ row }: { row: Row }) {
  const share = row.state === "running" ? shareOf(row.progress) : null;
  return (
    <span class="standing">
      <Badge state={row.state as State} />
      {share !== null && (
        <span class="muted small" title={`${count(row.progress?.numerator)} of ${count(row.progress?.denominator)}`}>
          {percent(share)}
        </span>
      )}
    </span>
  );
}

/** How long ago something was, by the job server's clock. */
function Since({ at }: { at: number | null }) {
  const now = overview.value?.time;
  if (at === null || now === undefined) return <span class="zero">{NOTHING}</span>;
  return <span title={exactTime(at)}>{duration(Math.floor(Math.max(now - at, 0)))}</span>;
}

function Spell({ row }: { row: Row }) {
  const now = overview.value?.time;
  if (row.state === "delayed" && row.due !== null && now !== undefined) {
    return <span title={exactTime(row.due)}>due in {duration(Math.ceil(Math.max(row.due - now, 0)))}</span>;
  }
  return <Since at={sinceOf(row)} />;
}

// ── what is done to many ───────────────────────────────────────────────────────────────────────────────────────────

const VERBS: Record<Action, { button: string; does: string; rule: string; sum: string }> = {
  retry: {
    button: "Try again",
    does: "Try again",
    rule: "Dead jobs wait again, with all their attempts before them, and delayed ones are due now.",
    sum: "dead or delayed",
  },
  priority: {
    button: "Priority",
    does: "Change the priority of",
    rule: "Jobs that wait go to the end of another queue. What runs goes on.",
    sum: "waiting",
  },
  cancel: {
    button: "Cancel",
    does: "Cancel",
    rule: "Jobs that wait are taken away for good. Those that run go on at their workers, and nobody hears of them.",
    sum: "waiting or running",
  },
};
const ACTIONS = ["retry", "priority", "cancel"] as const;

function Many(props: {
  rows: readonly Row[] | undefined;
  chosen: readonly Row[];
  isAll: boolean;
  filters: Filters;
  all: () => void;
  clear: () => void;
}) {
  const { chosen, isAll } = props;
  const [opened, setOpened] = useState<Action | null>(null);
  const isAny = isAll || chosen.length > 0;
  const close = (isDone: boolean) => {
    setOpened(null);
    if (isDone) props.clear();
  };
  return (
    <div class="bar many">
      <span class={isAny ? "" : "muted"} role="status">
        {isAll ? "All that match are selected" : isAny ? `${plural(chosen.length, "job")} selected` : "None selected"}
      </span>
      {isAny ? (
        <button type="button" class="button bare" onClick={props.clear}>
          Select none
        </button>
      ) : null}
      {!isAll && (
        <button type="button" class="button bare" disabled={!props.rows?.length} onClick={props.all}>
          Select all that match
        </button>
      )}
      <span class="end bar">
        {ACTIONS.map((action) => (
          <button
            key={action}
            type="button"
            class={action === "cancel" ? "button danger" : "button"}
            disabled={!isAll && !chosen.some(({ state }) => suits(action, state))}
            onClick={() => setOpened(action)}
          >
            {VERBS[action].button}
          </button>
        ))}
      </span>
      {opened && isAll && <AllDialog action={opened} filters={props.filters} close={close} />}
      {opened && !isAll && <ChosenDialog action={opened} chosen={chosen} close={close} />}
    </div>
  );
}

function PriorityField({ value, set }: { value: Priority; set: (priority: Priority) => void }) {
  return (
    <div class="field">
      <span class="label">New priority</span>
      <Tabs
        label="New priority"
        options={PRIORITIES.map((each) => [each, capital(each)] as const)}
        picked={value}
        pick={set}
      />
    </div>
  );
}

function ChosenDialog(props: { action: Action; chosen: readonly Row[]; close: (isDone: boolean) => void }) {
  const { action } = props;
  const [chosen] = useState(props.chosen);
  const [priority, setPriority] = useState<Priority>("high");
  const fit = chosen.filter(({ state }) => suits(action, state));
  const jobs = plural(fit.length, "job");
  const run = async () => {
    const refused: string[] = [];
    for (const { handle } of fit) {
      try {
        await doToOne(action, handle, priority);
      } catch (error) {
        if (!(error instanceof Problem) || error.status === 0) throw error;
        refused.push(error.message);
      }
    }
    if (refused.length) {
      throw new Problem(0, "partly", `Done for ${fit.length - refused.length} of ${jobs}. ${refused[0]}`);
    }
  };
  return (
    <Confirm
      title={`${VERBS[action].does} ${jobs}`}
      action={action === "priority" ? `Change ${jobs}` : `${VERBS[action].does} ${jobs}`}
      dangerous={action === "cancel"}
      done={saidOf(action, priority, jobs)}
      run={run}
      close={props.close}
    >
      <p>
        {fit.length < chosen.length && (
          <>
            Of {plural(chosen.length, "selected job")} <strong>{count(fit.length)}</strong>{" "}
            {fit.length === 1 ? "is" : "are"} {VERBS[action].sum}.{" "}
          </>
        )}
        {VERBS[action].rule}
      </p>
      {action === "priority" && <PriorityField value={priority} set={setPriority} />}
    </Confirm>
  );
}

/** Do it to one job. */
export function doToOne(action: Action, handle: string, priority: Priority): Promise<unknown> {
  const path = { handle };
  if (action === "cancel") return remove("/api/v1/jobs/{handle}", { path });
  if (action === "retry") return post("/api/v1/jobs/{handle}/retry", { path });
  return post("/api/v1/jobs/{handle}/priority", { path, body: { priority } });
}

function saidOf(action: Action, priority: Priority, jobs: string): string {
  if (action === "cancel") return `Cancelled ${jobs}`;
  return action === "retry" ? `${jobs}: waiting again` : `${jobs}: ${priority} priority from now on`;
}

function AllDialog({ action, filters, close }: { action: Action; filters: Filters; close: (isDone: boolean) => void }) {
  const [priority, setPriority] = useState<Priority>("high");
  const [told, setTold] = useState<{ count: number; isDone: boolean }>({ count: 0, isDone: false });
  const [problem, setProblem] = useState<Problem | null>(null);
  const abort = useRef(new AbortController());
  // biome-ignore lint/correctness/useExhaustiveDependencies: the filters stay the same while the dialog is open
  useEffect(() => {
    const counting = new AbortController();
    setTold({ count: 0, isDone: false });
    setProblem(null);
    doToMany(action, filters, priority, true, (count) => setTold({ count, isDone: false }), counting.signal)
      .then((count) => setTold({ count, isDone: true }))
      .catch((error) => {
        if (!counting.signal.aborted && error instanceof Problem) setProblem(error);
      });
    return () => counting.abort();
  }, [action, priority]);
  useEffect(() => () => abort.current.abort(), []);
  const run = async () => {
    const { signal } = abort.current;
    try {
      await doToMany(action, filters, priority, false, () => {}, signal);
    } catch (error) {
      throw signal.aborted ? new Problem(0, "stopped", "Stopped: for some jobs it has been done") : error;
    }
  };
  const jobs = plural(told.count, "job");
  const isMuch = told.count > MUCH;
  return (
    <Confirm
      title={`${VERBS[action].does} all jobs that match`}
      action={!told.isDone ? "Counting" : action === "priority" ? `Change ${jobs}` : `${VERBS[action].does} ${jobs}`}
      {...(isMuch ? { typed: String(told.count) } : {})}
      dangerous={action === "cancel"}
      isWaiting={!told.isDone || !told.count}
      done={saidOf(action, priority, jobs)}
      run={run}
      close={close}
    >
      <ProblemNote problem={problem} />
      <p>
        Jobs {inWords(filters, duration)}: <strong>{told.isDone ? jobs : `${count(told.count)} so far`}</strong>
        {told.isDone && !told.count
          ? ` that ${action === "priority" ? "would change" : `are ${VERBS[action].sum}`}`
          : ""}
        .
      </p>
      <p class="muted">{VERBS[action].rule}</p>
      {action === "priority" && <PriorityField value={priority} set={setPriority} />}
    </Confirm>
  );
}
