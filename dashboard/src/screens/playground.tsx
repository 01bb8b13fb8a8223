/** Submits a job and follows it, and shows the same call for programs. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, Problem, post, type Schemas } from "../api/client";
import { type Call, curl, php, python, reachable } from "../calls";
import { Badge, Copy, coloured, EmptyState, PageHead, ProblemNote, type State, Tabs } from "../components/basics";
import { Field, Input, Select } from "../components/fields";
import { pretty, readable } from "../content";
import { useFetched } from "../fetching";
import { bytes, duration, plural } from "../format";
import { type Event, type Followed as JobEvents, useEvents, withWhole, wordsOf } from "../job_events";
import { whyOf } from "../jobs";
import { fromQuery, place, setQuery, to } from "../router";
import { canLeave, may } from "../session";

const KINDS = ["text", "json", "file"] as const;
const PRIORITIES = ["high", "normal", "low"] as const;
const LANGUAGES = ["curl", "python", "php"] as const;
const WRITERS = { curl, python, php };
const LOOK_EVERY = 300; // milliseconds, for the handle of a job that is waited for
const LOOKS = 20;
const LONG_LINE = 200; // letters
const LONG = 1000; // milliseconds that a job may wait without a word on why

type Answer = Schemas["Completed"] | Schemas["Created"];

/** How a job has ended that was waited for. */
interface Outcome {
  handle: string;
  isWell: boolean;
  text: string;
}

interface Submission extends Call {
  /** Of a file. */
  base64: string;
}

export default function PlaygroundScreen() {
  const [text, setText] = useState("");
  const [file, setFile] = useState<{ name: string; size: number; base64: string } | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [isBusy, setBusy] = useState(false);
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const waited = useRef<AbortController | null>(null);
  useEffect(() => () => waited.current?.abort(), []);

  const kind = fromQuery("kind", "text", KINDS);
  const delay = Number(fromQuery("delay", "")) || null;
  const call: Submission = {
    function: fromQuery("function", ""),
    payload: kind === "file" ? { kind: "file", name: file?.name ?? "payload" } : { kind: "text", text },
    unique: fromQuery("unique", ""),
    priority: delay === null ? fromQuery("priority", "normal", PRIORITIES) : "normal",
    isBackground: delay !== null || fromQuery("background", "") !== "",
    delay,
    base64: kind === "file" ? (file?.base64 ?? "") : "",
  };
  const fault = kind === "json" && text.trim() ? faultOfJson(text) : "";
  const job = fromQuery("job", "");

  const run = async () => {
    waited.current?.abort();
    const abort = new AbortController();
    waited.current = abort;
    setProblem(null);
    setOutcome(null);
    setQuery({ job: "" });
    setBusy(true);
    try {
      const answer = await submit(call, abort.signal, (handle) => setQuery({ job: handle }));
      if (!answer) return;
      if ("result" in answer) setOutcome({ handle: answer.handle, isWell: true, text: readable(answer.result) });
      setQuery({ job: answer.handle });
    } catch (error) {
      if (abort.signal.aborted) return;
      const told = error instanceof Problem ? error : new Problem(0, "fault", String(error));
      const handle = place.peek().query.get("job"); // where it is followed is also told how it has failed
      if (handle && told.kind === "job-failed") setOutcome({ handle, isWell: false, text: told.message });
      else setProblem(told);
    }
    if (waited.current === abort) setBusy(false);
  };

  const giveUp = () => {
    waited.current?.abort();
    setBusy(false);
  };

  if (!may("submit")) {
    return (
      <>
        <PageHead title="Playground" />
        <div class="card">
          <EmptyState icon="playground" title="For those who submit jobs">
            Your token has not the role <code>submit</code>.
          </EmptyState>
        </div>
      </>
    );
  }
  return (
    <>
      <PageHead title="Playground" />
      <div class="playground">
        <form
          class="card"
          aria-label="A job"
          onSubmit={(event) => {
            event.preventDefault();
            void run();
          }}
        >
          <div class="card-body form">
            <FunctionField />
            <div class="field">
              <div class="bar">
                <label class="label" for="payload">
                  Payload
                </label>
                <div class="end">
                  <Tabs
                    label="What it is"
                    options={[
                      ["text", "Text"],
                      ["json", "JSON"],
                      ["file", "File"],
                    ]}
                    picked={kind}
                    pick={(each) => setQuery({ kind: each === "text" ? "" : each })}
                  />
                </div>
              </div>
              {kind === "file" ? (
                <>
                  <input
                    id="payload"
                    class="input file"
                    type="file"
                    onChange={(event) => void read(event.currentTarget.files?.[0]).then(setFile)}
                  />
                  <span class="muted small">{file ? bytes(file.size) : "No file is chosen: the payload is empty"}</span>
                </>
              ) : (
                <>
                  <textarea
                    id="payload"
                    class="input area mono"
                    rows={7}
                    spellcheck={false}
                    placeholder={kind === "json" ? '{"width": 80}' : ""}
                    aria-invalid={Boolean(fault)}
                    aria-describedby="payload-note"
                    value={text}
                    onInput={(event) => setText(event.currentTarget.value)}
                  />
                  <span id="payload-note" class={fault ? "fault small" : "muted small"}>
                    {fault || bytes(new TextEncoder().encode(text).length)}
                  </span>
                </>
              )}
            </div>
            <Options call={call} />
          </div>
          <div class="dialog-foot">
            {isBusy && !call.isBackground && (
              <button type="button" class="button" onClick={giveUp}>
                Give up
              </button>
            )}
            <button type="submit" class="button primary" disabled={isBusy || Boolean(fault)}>
              {call.isBackground ? "Submit" : isBusy ? "Waiting for the result" : "Submit and wait"}
            </button>
          </div>
        </form>
        <div class="stack">
          <ProblemNote problem={problem} />
          {job ? (
            <Followed key={job} handle={job} outcome={outcome?.handle === job ? outcome : null} />
          ) : (
            <section class="card">
              <EmptyState icon="playground" title={isBusy ? "Submitting" : "What happens to the job is told here"}>
                Its progress, the data that its worker sends and its result, as they come.
              </EmptyState>
            </section>
          )}
          <SameCall call={call} />
        </div>
      </div>
    </>
  );
}

function faultOfJson(text: string): string {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `This is no JSON: ${error instanceof Error ? error.message : error}`;
  }
}

async function read(file: File | undefined): Promise<{ name: string; size: number; base64: string } | null> {
  if (!file) return null;
  const url = await new Promise<string>((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result));
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(file);
  });
  return { name: file.name, size: file.size, base64: url.slice(url.indexOf(",") + 1) };
}

/**
 * Submit a job, and tell its handle while it is waited for. One that is waited for is looked up while it is underway:
 * for that it needs a unique, and has one of this page where none is given.
 */
async function submit(call: Submission, signal: AbortSignal, follow: (handle: string) => void): Promise<Answer | null> {
  const unique =
    call.unique || (call.isBackground ? "" : `playground-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`);
  const body = {
    function: call.function,
    unique,
    ...(call.delay === null ? { priority: call.priority, background: call.isBackground } : { delay: call.delay }),
    ...(call.payload.kind === "file" ? { workload_base64: call.base64 } : { workload: call.payload.text }),
  };
  let isOver = false;
  const asked = (post("/api/v1/jobs", { body, signal }) as Promise<Answer>).finally(() => {
    isOver = true;
  });
  if (!call.isBackground && may("read")) {
    const query = { function: call.function, unique, order: "newest", limit: 1 } as const;
    void (async () => {
      for (let look = 0; look < LOOKS && !isOver && !signal.aborted; look++) {
        const { jobs } = await get("/api/v1/jobs", { query, signal });
        const [found] = jobs;
        if (found && !isOver) return follow(found.handle);
        await new Promise((done) => setTimeout(done, LOOK_EVERY));
      }
    })().catch(() => {});
  }
  const answer = await asked;
  return signal.aborted ? null : answer;
}

function FunctionField() {
  const value = fromQuery("function", "");
  const query = { prefix: value, limit: 20 };
  const ask = (signal: AbortSignal) => get("/api/v1/functions", { query, signal });
  const { data } = useFetched(`functions ${value}`, may("read") ? ask : nothing, 10_000);
  return (
    <Field label="Function">
      {(id) => (
        <>
          <Input
            id={id}
            value={value}
            change={(given) => setQuery({ function: given })}
            placeholder="reverse"
            list="functions"
            required
          />
          <datalist id="functions">
            {data?.functions.map(({ name, workers }) => (
              <option key={name} value={name}>
                {plural(workers, "worker")}
              </option>
            ))}
          </datalist>
        </>
      )}
    </Field>
  );
}

const nothing = () => Promise.resolve(undefined);

function Options({ call }: { call: Call }) {
  const isLater = call.delay !== null;
  return (
    <div class="form-grid">
      <Field label="Unique" note="One job of it at a time">
        {(id) => (
          <Input id={id} value={call.unique} change={(given) => setQuery({ unique: given })} placeholder="none" />
        )}
      </Field>
      <Field label="Delay" note="Seconds until it may run">
        {(id) => (
          <input
            id={id}
            class="input"
            type="number"
            min="0"
            step="any"
            placeholder="none"
            value={call.delay ?? ""}
            onInput={(event) => setQuery({ delay: event.currentTarget.value })}
          />
        )}
      </Field>
      <Field label="Priority" note={isLater ? "A delayed job has normal priority" : undefined}>
        {(id) => (
          <Select
            id={id}
            value={call.priority}
            change={(given) => setQuery({ priority: given === "normal" ? "" : given })}
            options={PRIORITIES}
            isFixed={isLater}
          />
        )}
      </Field>
      <label class="check">
        <input
          type="checkbox"
          checked={call.isBackground}
          disabled={isLater}
          onChange={(event) => setQuery({ background: event.currentTarget.checked ? "yes" : "" })}
        />
        <span>
          In the background
          <span class="muted small">
            {call.isBackground ? "It goes on without this page" : "It is gone when this page is"}
          </span>
        </span>
      </label>
    </div>
  );
}

/* ── the job ─────────────────────────────────────────────────────────────────────────────────────────────────── */

const STATES: Record<string, State> = { waiting: "queued", running: "running", completed: "completed", gone: "paused" };

/**
 * What happens to a job. Who follows one that is waited for may have come after the first of its data, or after its end:
 * the `outcome` has all that its worker has sent, data and result, once that is known.
 */
function Followed({ handle, outcome }: { handle: string; outcome: Outcome | null }) {
  const [isToFollow] = useState(outcome === null && may("read")); // of a job that has ended there may be no stream
  const [began] = useState(() => Date.now() / 1000);
  const known = useEvents(handle, isToFollow);
  const { phase, end, attempt, progress, events } = known;
  const { data, result: told } = withWhole(known, outcome?.isWell ? outcome.text : null);
  const result = told ?? outcome?.text ?? null;
  const state = end?.kind ?? (outcome ? (outcome.isWell ? "completed" : "failed") : phase);
  const isFailure = end === null ? outcome?.isWell === false : end.kind !== "completed";
  const after = (event: Event | undefined) => Math.max((event?.at ?? began) - began, 0);
  const leftOut = (events[0]?.number ?? 1) - 1;
  return (
    <section class="card" aria-label="The job">
      <div class="card-head">
        <h2>
          <a href={to(["jobs", handle])}>{handle}</a>
        </h2>
        <span role="status">
          <Badge state={STATES[state] ?? "failed"}>{state}</Badge>
        </span>
        {attempt > 1 && <span class="muted small">attempt {attempt}</span>}
        {events.length > 0 && <span class="muted small end">{duration(after(events.at(-1)))}</span>}
      </div>
      <div class="card-body form">
        <Progress progress={progress} isWell={state === "completed"} isOver={result !== null || phase === "gone"} />
        {phase === "gone" && result === null && (
          <p class="muted">Nothing is told of it any more: it has ended a while ago, or never was.</p>
        )}
        {state === "waiting" && !events.length && <Waiting handle={handle} />}
        {data && <Output title="Data" text={data} />}
        {result !== null && (
          <Output
            title={isFailure ? "Why" : "Result"}
            text={pretty(result)}
            none={isFailure ? "nobody said" : "empty"}
          />
        )}
        {events.length > 0 && (
          <ol class="happenings" aria-label="What has happened">
            {leftOut > 0 && <li class="muted small">{plural(leftOut, "event")} before</li>}
            {events.map((event) => (
              <li key={event.number} style={coloured(COLOURS[event.kind] ?? "failed")}>
                <span class="at muted small">{duration(after(event))}</span>
                <span class="dot" />
                <span class="event">{event.kind}</span>
                <span class="muted cut">{firstLine(wordsOf(event))}</span>
              </li>
            ))}
          </ol>
        )}
      </div>
    </section>
  );
}

function firstLine(text: string): string {
  const [line = ""] = text.trimStart().split("\n", 1);
  return line.length > LONG_LINE ? `${line.slice(0, LONG_LINE)}…` : line;
}

const COLOURS: Record<string, State> = {
  assigned: "running",
  status: "running",
  data: "delayed",
  warning: "retried",
  retry: "retried",
  gap: "paused",
  completed: "completed",
};

/** Has its room from the beginning, so that nothing moves when the first status comes. */
function Progress(props: { progress: JobEvents["progress"]; isWell: boolean; isOver: boolean }) {
  const { progress, isWell, isOver } = props;
  const share = progress?.denominator ? Math.min(progress.numerator / progress.denominator, 1) : null;
  return (
    <div class="progress">
      <progress aria-label="Progress" max={1} value={isWell ? 1 : (share ?? 0)} />
      <span class="muted small">
        {progress ? `${progress.numerator} of ${progress.denominator}` : isOver ? "" : "no status yet"}
      </span>
    </div>
  );
}

/** Why it waits, if it still does after a moment. */
function Waiting({ handle }: { handle: string }) {
  const [isLong, setLong] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLong(true), LONG);
    return () => clearTimeout(timer);
  }, []);
  const ask = (signal: AbortSignal) => whyOf(handle, signal);
  const { data } = useFetched(`why ${handle} ${isLong}`, isLong && may("read") ? ask : nothing);
  return <p class="muted">{data ?? "It waits."}</p>;
}

function Output({ title, text, none = "empty" }: { title: string; text: string; none?: string }) {
  return (
    <div class="output">
      <div class="bar">
        <h3 class="label">{title}</h3>
        {text && (
          <span class="end">
            <Copy text={text} label={`Copy: ${title}`} />
          </span>
        )}
      </div>
      {text ? (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is to be reached by the keyboard
        <pre tabIndex={0}>{text}</pre>
      ) : (
        <p class="muted">{none}</p>
      )}
    </div>
  );
}

/* ── the same call ───────────────────────────────────────────────────────────────────────────────────────────── */

function SameCall({ call }: { call: Call }) {
  const language = fromQuery("as", "curl", LANGUAGES);
  const ask = (signal: AbortSignal) => get("/api/v1/server", { signal });
  const { data } = useFetched("addresses", may("read") ? ask : nothing, 60_000);
  const text = useMemo(() => {
    const where = {
      http: location.origin,
      gearman: reachable(data?.addresses ?? [], location.hostname),
      hasTokens: canLeave.value,
    };
    return WRITERS[language]({ ...call, function: call.function || "reverse" }, where);
  }, [call, language, data]);
  return (
    <section class="card" aria-label="The same call">
      <div class="card-head">
        <h2>The same call</h2>
        <div class="end bar">
          <Tabs
            label="As"
            options={[
              ["curl", "curl"],
              ["python", "Python"],
              ["php", "PHP"],
            ]}
            picked={language}
            pick={(each) => setQuery({ as: each === "curl" ? "" : each })}
          />
          <Copy text={text} label="Copy the call" />
        </div>
      </div>
      <div class="card-body output">
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is to be reached by the keyboard */}
        <pre tabIndex={0}>{text}</pre>
      </div>
    </section>
  );
}
