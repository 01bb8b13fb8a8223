/** Jobs that are made at set times: when they run next, and how they are run, paused and changed. */
import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { get, post, put, remove, type Schemas } from "../api/client";
import { Badge, EmptyState, KeyValue, PageHead, ProblemNote, Search, Tabs } from "../components/basics";
import { Confirm, Dialog } from "../components/dialog";
import { Field, Input, Select } from "../components/fields";
import { Icon, type IconName } from "../components/icons";
import { type Column, Table } from "../components/table";
import { attempt } from "../components/toast";
import { useFetched } from "../fetching";
import { duration, exactTime, NOTHING, time } from "../format";
import { overview } from "../live";
import { fromQuery, place, setQuery, to } from "../router";
import { may } from "../session";
import { inWords, partsWithRuns } from "../timetable";

type Row = Schemas["ScheduleRow"];
type Schedule = Schemas["Schedule"];
type NewSchedule = Schemas["NewSchedule"];
const SPANS = { day: 86400, week: 7 * 86400 };
type Span = keyof typeof SPANS;
const SORTS = ["name", "next_run"] as const;
const PAGE = 50;

const now = () => overview.value?.time ?? Date.now() / 1000;

export default function SchedulesScreen() {
  const find = fromQuery("q", "");
  const sort = fromQuery("sort", "name", SORTS);
  const after = fromQuery("after", "");
  const show = fromQuery("show", "");
  const edit = fromQuery("edit", "");
  const isNew = fromQuery("new", "") !== "";
  const query = { find, sort, after, limit: PAGE };
  const listed = useFetched(JSON.stringify(query), (signal) => get("/api/v1/schedules", { query, signal }), 5000);
  const first = useFetched(
    find,
    (signal) => get("/api/v1/schedules", { query: { find, sort: "next_run", limit: LANES + 1 }, signal }),
    5000,
  );
  const again = () => {
    listed.again();
    first.again();
  };
  const close = () => setQuery({ show: "", edit: "", new: "" });
  const isOperator = may("operate");
  return (
    <>
      <PageHead title="Schedules">
        <Search label="Find a schedule" value={find} change={(value) => setQuery({ q: value, after: "" })} />
        {isOperator && (
          <button type="button" class="button primary" onClick={() => setQuery({ new: "yes" })}>
            Add
          </button>
        )}
      </PageHead>
      <div class="stack">
        {first.data && first.data.schedules.length > 0 && <TimeLine rows={first.data.schedules} />}
        <Table
          label="Schedules"
          columns={columnsOf(again)}
          rows={listed.data?.schedules}
          keyOf={(row) => row.name}
          problem={listed.problem}
          next={listed.data?.next}
          defaultSort="name"
          empty={
            find ? (
              <EmptyState icon="search" title={`No schedule or function is called “${find}”`} />
            ) : (
              <EmptyState
                icon="schedules"
                title="No schedules yet"
                command="geartrain schedule set nightly cron='30 2 * * *' function=report"
              >
                A schedule makes a job at its times, for workers in any language, and needs no other process to do so.
              </EmptyState>
            )
          }
        />
      </div>
      {show && <Details name={show} close={close} again={again} />}
      {isOperator && isNew && <Editor name="" close={close} again={again} />}
      {isOperator && edit && <EditorOf name={edit} close={close} again={again} />}
    </>
  );
}

function columnsOf(again: () => void): Column<Row>[] {
  const columns: Column<Row>[] = [
    {
      title: "Schedule",
      sort: "name",
      order: "ascending",
      isMain: true,
      cell: (row) => (
        <>
          <a href={to(["schedules"], { ...kept(), show: row.name })}>{row.name}</a>{" "}
          {row.paused && <Badge state="paused" />}
        </>
      ),
    },
    { title: "When", cell: (row) => <When keys={row.keys} /> },
    {
      title: "Function",
      room: "second",
      cell: (row) => <a href={to(["functions", row.function])}>{row.function}</a>,
    },
    {
      title: "Next run",
      sort: "next_run",
      order: "ascending",
      isNumber: true,
      cell: (row) => <Next row={row} />,
    },
    {
      title: "Last run",
      isNumber: true,
      room: "second",
      cell: (row) => <span title={exactTime(row.last_run)}>{time(row.last_run)}</span>,
    },
  ];
  if (may("operate")) {
    columns.push({
      title: "",
      isNumber: true,
      room: "second",
      cell: (row) => <Actions name={row.name} paused={row.paused} again={again} />,
    });
  }
  return columns;
}

/** What of the query stays when a dialog opens. */
function kept(): Record<string, string> {
  const { query } = place.value;
  return Object.fromEntries([...query].filter(([name]) => !["show", "edit", "new"].includes(name)));
}

function When({ keys }: { keys: Record<string, string> }) {
  const words = inWords(keys);
  const expression = keys["cron"] ?? keys["every"] ?? "";
  return (
    <span class="when wraps" title={expression}>
      {words ?? <code>{expression}</code>}
      {keys["zone"] && <span class="muted small">{keys["zone"]}</span>}
    </span>
  );
}

function Next({ row: { next_run, paused } }: { row: Row }) {
  if (paused || next_run === null) return <span class="zero">{NOTHING}</span>;
  const left = next_run - now();
  return <span title={exactTime(next_run)}>{left <= 0 ? "now" : `in ${spanOf(left)}`}</span>;
}

/** Whole seconds: a clock that counts down has no tenths. */
const spanOf = (left: number) => (left < 10 ? `${Math.ceil(left)} s` : duration(Math.ceil(left)));

function Actions(props: { name: string; paused: boolean; again: () => void; isLong?: boolean; gone?: () => void }) {
  const { name, paused, again, isLong } = props;
  const [isDeleting, setDeleting] = useState(false);
  const path = { name };
  const run = async (action: () => Promise<unknown>, done: string) => {
    await attempt(action, done);
    again();
  };
  const actions: { label: string; icon: IconName; run: () => unknown }[] = [
    {
      label: "Run now",
      icon: "run",
      run: () => run(() => post("/api/v1/schedules/{name}/run", { path }), `A job of ${name} is submitted`),
    },
    paused
      ? {
          label: "Resume",
          icon: "resume",
          run: () => run(() => post("/api/v1/schedules/{name}/resume", { path }), `${name} runs again from now on`),
        }
      : {
          label: "Pause",
          icon: "pause",
          run: () => run(() => post("/api/v1/schedules/{name}/pause", { path }), `${name} is paused`),
        },
    { label: "Edit", icon: "edit", run: () => setQuery({ show: "", edit: name }) },
    { label: "Delete", icon: "trash", run: () => setDeleting(true) },
  ];
  return (
    <>
      {actions.map(({ label, icon, run }) => (
        <button
          key={label}
          type="button"
          class={`button ${isLong ? "" : "bare"} ${isLong && label === "Delete" ? "danger" : ""}`}
          aria-label={`${label} ${name}`}
          title={isLong ? undefined : label}
          onClick={() => void run()}
        >
          <Icon name={icon} />
          {isLong && label}
        </button>
      ))}
      {isDeleting && (
        <Delete
          name={name}
          close={(isDone) => {
            setDeleting(false);
            if (!isDone) return;
            again();
            props.gone?.();
          }}
        />
      )}
    </>
  );
}

function useSchedule(name: string) {
  return useFetched(`schedule ${name}`, (signal) => get("/api/v1/schedules/{name}", { path: { name }, signal }));
}

function Delete({ name, close }: { name: string; close: (isDone: boolean) => void }) {
  const { data, problem } = useSchedule(name);
  const isOfFile = data?.source === "file";
  return (
    <Confirm
      title={`Delete ${name}`}
      action="Delete"
      dangerous
      isWaiting={!data || isOfFile}
      done={`${name} is deleted`}
      run={() => remove("/api/v1/schedules/{name}", { path: { name } })}
      close={close}
    >
      <ProblemNote problem={problem} />
      <p>
        {isOfFile ? (
          <>
            It stands in the configuration file, and has to be taken out there. Here it can be paused, or be replaced by
            another one of its name.
          </>
        ) : (
          <>
            It makes no more jobs; those that it has made stay. If the configuration file has a schedule of this name,
            that counts again.
          </>
        )}
      </p>
    </Confirm>
  );
}

function Details({ name, close, again }: { name: string; close: () => void; again: () => void }) {
  const { data, problem, again: anew } = useSchedule(name);
  const both = () => {
    anew();
    again();
  };
  return (
    <Dialog
      title={name}
      close={close}
      foot={
        data && may("operate") ? (
          <Actions name={name} paused={data.paused} again={both} gone={close} isLong />
        ) : (
          <button type="button" class="button" onClick={close}>
            Close
          </button>
        )
      }
    >
      <ProblemNote problem={problem} />
      {data && <KeyValue rows={rowsOf(data)} />}
    </Dialog>
  );
}

function rowsOf({ keys, workload, next_runs, last_run, job, source, paused }: Schedule): [string, ComponentChildren][] {
  const { function: does = "", cron, every, ...rest } = keys;
  const words = inWords(keys);
  const expression = cron ?? `every ${every}`;
  return [
    ["Function", <a href={to(["functions", does])}>{does}</a>],
    [
      "When",
      <>
        {words && cron && `${words}, `}
        {cron ? <code>{expression}</code> : words}
      </>,
    ],
    ...Object.entries(rest).map(([key, value]): [string, ComponentChildren] => [titled(key), value]),
    ["Payload", payloadOf(workload)],
    [
      "Next runs",
      paused ? (
        <Badge state="paused" />
      ) : (
        <ol>
          {next_runs.map((run) => (
            <li key={run}>{clockOf(run)}</li>
          ))}
        </ol>
      ),
    ],
    [
      "Last run",
      last_run ? (
        <>
          {exactTime(last_run)} {job && <a href={to(["jobs", job])}>{job}</a>}
        </>
      ) : (
        "not yet"
      ),
    ],
    ["Comes from", source === "file" ? "the configuration file" : "a command"],
  ];
}

const titled = (key: string) => key.charAt(0).toUpperCase() + key.slice(1);

/** A run as the clock of its zone shows it: 2026-11-29 02:30:00 +01:00. */
const clockOf = (run: string) => run.replace("T", " ").replace(/(\.\d+)?([+-]\d\d:\d\d)$/, " $2");

function payloadOf(workload: Schedule["workload"]): ComponentChildren {
  if ("base64" in workload) return <span class="muted">bytes that are no text</span>;
  return workload.text ? <code class="payload">{workload.text}</code> : <span class="muted">none</span>;
}

/* ── the time line ───────────────────────────────────────────────────────────────────────────────────────────── */

const PARTS = 288;
const LANES = 12;

/** Those that run first; where there is one more than fits, others follow. */
function TimeLine({ rows }: { rows: readonly Row[] }) {
  const span = fromQuery<Span>("span", "day", ["day", "week"]);
  const minute = Math.floor(now() / 60) * 60;
  const coming = useMemo(() => {
    const until = minute + SPANS[span];
    return rows.filter((row) => !row.paused && row.next_run !== null && row.next_run < until);
  }, [rows, minute, span]);
  const lanes = coming.slice(0, LANES);
  return (
    <section class="card fresh" aria-label="Next runs">
      <div class="card-head">
        <h2>Next runs</h2>
        <div class="end">
          <Tabs
            label="How far ahead"
            options={[
              ["day", "Day"],
              ["week", "Week"],
            ]}
            picked={span}
            pick={(each) => setQuery({ span: each === "day" ? "" : each })}
          />
        </div>
      </div>
      {lanes.length ? (
        <div class="time-line">
          {lanes.map((row) => (
            <Lane key={row.name} row={row} from={minute} until={minute + SPANS[span]} />
          ))}
          <Axis from={minute} span={span} />
        </div>
      ) : (
        <p class="card-body muted">Nothing runs within the {span}.</p>
      )}
      {coming.length > LANES && <p class="card-body muted small">And others, whose first run is later</p>}
    </section>
  );
}

function Lane({ row, from, until }: { row: Row; from: number; until: number }) {
  const bars = useMemo(() => {
    const parts = partsWithRuns(row, from, until, PARTS);
    const found: [at: number, width: number][] = [];
    parts.forEach((isRun, at) => {
      if (!isRun) return;
      const last = found.at(-1);
      // Marks that are so close that none could be told from the next are one bar.
      if (last && at - last[0] - last[1] <= 1) last[1] = at + 1 - last[0];
      else found.push([at, 1]);
    });
    return found;
  }, [row, from, until]);
  const left = spanOf(Math.max((row.next_run ?? 0) - now(), 0));
  return (
    <>
      <a class="lane-name" href={to(["schedules"], { ...kept(), show: row.name })}>
        {row.name}
      </a>
      <svg
        class="lane"
        viewBox={`0 0 ${PARTS} 20`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`next run in ${left}`}
      >
        <title>{inWords(row.keys) ?? row.keys["cron"]}</title>
        {bars.map(([at, width]) => (
          <rect
            key={at}
            class={width > 1 ? "often" : undefined}
            x={at}
            y={width > 1 ? 5 : 2}
            width={width === 1 ? 1.25 : width}
            height={width > 1 ? 10 : 16}
            rx={width > 1 ? 0 : 0.5}
          />
        ))}
      </svg>
    </>
  );
}

const hours = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat("en-GB", { weekday: "short" });

/** Full hours of the clock here, or its midnights. */
function Axis({ from, span }: { from: number; span: Span }) {
  const marks: [share: number, text: string, more: string][] = [];
  const step = span === "day" ? 6 : 24;
  const at = new Date(1000 * from);
  at.setHours(step * Math.ceil((at.getHours() + 1) / step), 0, 0, 0);
  while (at.getTime() / 1000 < from + SPANS[span]) {
    const share = (at.getTime() / 1000 - from) / SPANS[span];
    marks.push(span === "day" ? [share, hours.format(at), ""] : [share, weekday.format(at), String(at.getDate())]);
    at.setHours(at.getHours() + step);
  }
  return (
    <>
      <span class="lane-name muted small">now</span>
      <div class="axis" aria-hidden="true">
        {marks.map(([share, text, more]) => (
          <span key={share} style={{ left: `${100 * share}%` }}>
            {text} <i class="second">{more}</i>
          </span>
        ))}
      </div>
    </>
  );
}

/* ── the form ────────────────────────────────────────────────────────────────────────────────────────────────── */

function EditorOf(props: { name: string; close: () => void; again: () => void }) {
  const { data, problem } = useSchedule(props.name);
  if (data) return <Editor {...props} schedule={data} />;
  return (
    <Dialog title={props.name} close={props.close}>
      {problem ? <ProblemNote problem={problem} /> : <p class="muted">Loading</p>}
    </Dialog>
  );
}

/** Whether there is a schedule of this name. */
function useIsTaken(name: string): boolean {
  const { data } = useFetched(`taken ${name}`, (signal) =>
    name ? get("/api/v1/schedules", { query: { name }, signal }) : NONE,
  );
  return Boolean(data?.schedules.length);
}

const NONE = Promise.resolve(null);
const DEFAULTS = { missed: "one", overlap: "allow", priority: "normal" };

function Editor(props: { name: string; schedule?: Schedule; close: () => void; again: () => void }) {
  const [schedule] = useState(props.schedule);
  const [name, setName] = useState(props.name);
  const [values, setValues] = useState<Record<string, string>>({ ...DEFAULTS, ...schedule?.keys });
  const [kind, setKind] = useState<"cron" | "every">(values["every"] ? "every" : "cron");
  const bytes = schedule && "base64" in schedule.workload ? schedule.workload.base64 : null;
  const [text, setText] = useState(schedule && "text" in schedule.workload ? schedule.workload.text : "");
  const [isBusy, setBusy] = useState(false);
  const value = (key: string) => values[key] ?? "";
  const set = (key: string) => (given: string) => setValues((before) => ({ ...before, [key]: given }));
  const isTaken = useIsTaken(schedule ? "" : name.trim());
  const words = inWords({ [kind]: value(kind) });
  const save = async () => {
    if (isBusy) return;
    const given = (key: string) => value(key).trim() || null;
    const body: NewSchedule = {
      function: value("function").trim(),
      [kind]: given(kind),
      priority: given("priority") as NewSchedule["priority"],
      jitter: given("jitter"),
      missed: given("missed") as NewSchedule["missed"],
      overlap: given("overlap") as NewSchedule["overlap"],
      ...(kind === "cron" ? { zone: given("zone") } : {}),
      ...(text || bytes === null ? { workload: text || null } : { workload_base64: bytes }),
    };
    const path = { name: name.trim() };
    setBusy(true);
    const isDone = await attempt(
      () => put("/api/v1/schedules/{name}", { path, body }),
      `${path.name} runs as it says from now on`,
    );
    setBusy(false);
    if (!isDone) return;
    props.again();
    props.close();
  };
  return (
    <Dialog
      title={schedule ? `Schedule ${props.name}` : "New schedule"}
      kind="large"
      close={props.close}
      submit={save}
      foot={
        <>
          <button type="button" class="button" onClick={props.close}>
            Cancel
          </button>
          <button type="submit" class="button primary" disabled={isBusy}>
            {schedule ? "Save" : isTaken ? "Replace" : "Add"}
          </button>
        </>
      }
    >
      {schedule?.source === "file" && (
        <p class="muted">
          It stands in the configuration file. What is saved here counts instead, until it is deleted.
        </p>
      )}
      <div class="form-grid">
        {!schedule && (
          <Field label="Name" note={isTaken ? "There is one of this name: it would be replaced" : undefined}>
            {(id) => <Input id={id} value={name} change={setName} placeholder="nightly" required />}
          </Field>
        )}
        <Field label="Function">
          {(id) => <Input id={id} value={value("function")} change={set("function")} placeholder="report" required />}
        </Field>
        <div class="field">
          <span class="label">When</span>
          <Tabs
            label="When"
            options={[
              ["cron", "By the clock"],
              ["every", "At intervals"],
            ]}
            picked={kind}
            pick={setKind}
          />
        </div>
        {kind === "cron" ? (
          <>
            <Field label="Expression" note={words ?? "minute, hour, day of month, month, day of week"}>
              {(id) => (
                <Input id={id} value={value("cron")} change={set("cron")} placeholder="30 2 * * *" required isCode />
              )}
            </Field>
            <Field label="Time zone" note="Without one that of the job server">
              {(id) => <Input id={id} value={value("zone")} change={set("zone")} placeholder="Europe/Berlin" />}
            </Field>
          </>
        ) : (
          <Field label="Interval" note="From run to run, such as 30s, 10m or 1h">
            {(id) => <Input id={id} value={value("every")} change={set("every")} placeholder="10m" required isCode />}
          </Field>
        )}
        <Field label="Jitter" note="By up to how much a run is later, such as 30s">
          {(id) => <Input id={id} value={value("jitter")} change={set("jitter")} placeholder="none" />}
        </Field>
        <Field label="Priority">
          {(id) => (
            <Select id={id} value={value("priority")} change={set("priority")} options={["high", "normal", "low"]} />
          )}
        </Field>
        <Field label="Runs missed while the job server was down">
          {(id) => (
            <Select
              id={id}
              value={value("missed")}
              change={set("missed")}
              options={[
                ["one", "one run for all of them"],
                ["none", "are left out"],
                ["all", "each is made up for"],
              ]}
            />
          )}
        </Field>
        <Field label="While the last run's job waits or runs">
          {(id) => (
            <Select
              id={id}
              value={value("overlap")}
              change={set("overlap")}
              options={[
                ["allow", "the next is made all the same"],
                ["skip", "the next is left out"],
              ]}
            />
          )}
        </Field>
      </div>
      <Field
        label="Payload"
        note={bytes === null ? undefined : "It holds bytes that are no text. What is written here replaces them."}
      >
        {(id) => (
          <textarea
            id={id}
            class="input area"
            rows={4}
            spellcheck={false}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        )}
      </Field>
    </Dialog>
  );
}
