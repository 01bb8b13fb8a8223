/** What the job server is, and the options in force: each with its value and who has given it. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { get, post, type Schemas } from "../api/client";
import { Badge, EmptyState, KeyValue, PageHead, ProblemNote, Search, type State, Tabs } from "../components/basics";
import { Confirm } from "../components/dialog";
import { FleetCard } from "../components/fleet";
import { useFetched } from "../fetching";
import { bytes, count, duration, exactTime, NOTHING, plural } from "../format";
import { overview } from "../live";
import { fromQuery, setQuery } from "../router";
import { may, who } from "../session";

type Option = Schemas["Option"];
type Server = Schemas["Server"];
const FROM = ["all", "given"] as const;
const SOURCES: Record<Option["source"], State> = {
  default: "paused",
  file: "queued",
  environment: "delayed",
  flag: "running",
};

export default function SettingsScreen() {
  const find = fromQuery("q", "");
  const from = fromQuery("from", "all", FROM);
  const { data, problem } = useFetched(
    "configuration",
    (signal) => get("/api/v1/configuration", { signal }),
    60_000, // it does not change
  );
  const options = data?.options;
  const shown = options?.filter((option) => (from === "all" || option.source !== "default") && isFound(option, find));
  const themes = [...new Set(shown?.map(({ theme }) => theme))];
  return (
    <>
      <PageHead title="Settings">
        <Search label="Find an option" value={find} change={(value) => setQuery({ q: value })} />
      </PageHead>
      <div class="stack">
        <ThisServer />
        <ProblemNote problem={problem} />
        <div class="bar">
          <h2>Options</h2>
          <Tabs
            label="Which options"
            options={[
              ["all", "All"],
              ["given", "Given"],
            ]}
            picked={from}
            pick={(each) => setQuery({ from: each === "all" ? "" : each })}
          />
          <span class="muted small">
            {options && `${count(options.filter(({ source }) => source !== "default").length)} of `}
            {options && plural(options.length, "option")} given, all others are as they come
          </span>
        </div>
        {shown && !shown.length && (
          <div class="card">
            {find ? (
              <EmptyState icon="search" title={`No option is called or speaks of “${find}”`} />
            ) : (
              <EmptyState icon="settings" title="All options are as they come" command="geartrain serve --help">
                Options are given on the command line, in the environment or in a file.
              </EmptyState>
            )}
          </div>
        )}
        <div class="themes">
          {themes.map((theme) => (
            <section class="card" key={theme} aria-label={theme}>
              <div class="card-head">
                <h2>{theme}</h2>
              </div>
              <dl class="options">
                {shown
                  ?.filter((option) => option.theme === theme)
                  .map((option) => (
                    <OptionRow key={option.key} option={option} />
                  ))}
              </dl>
            </section>
          ))}
        </div>
      </div>
    </>
  );
}

function isFound({ key, value, meaning, where }: Option, find: string): boolean {
  return `${key} ${key.replaceAll("_", "-")} ${value} ${meaning} ${where}`.toLowerCase().includes(find.toLowerCase());
}

function OptionRow({ option: { key, value, source, where, meaning } }: { option: Option }) {
  return (
    <div class="option">
      <dt>
        <code>{key}</code>
        <p class="muted small">{marked(meaning)}</p>
      </dt>
      <dd>
        {value ? <code>{value}</code> : <span class="muted">{NOTHING}</span>}
        {source !== "default" && (
          <span class="source">
            <Badge state={SOURCES[source]}>{source}</Badge>
            {where && where !== source && <span class="muted small">{where}</span>}
          </span>
        )}
      </dd>
    </div>
  );
}

/** Text in which `backticks` mark what is to be typed. */
function marked(text: string): ComponentChildren {
  return text.split("`").map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part));
}

function ThisServer() {
  const [isDraining, setDraining] = useState(false);
  const ask = (signal: AbortSignal) => get("/api/v1/server", { signal });
  const { data, problem } = useFetched("server", may("read") ? ask : nothing, 10_000);
  const told = overview.value;
  return (
    <>
      <section class="card fresh" aria-label="This job server">
        <div class="card-head">
          <h2>This job server</h2>
          {data && may("operate") && (
            <button type="button" class="button danger end" disabled={data.draining} onClick={() => setDraining(true)}>
              {data.draining ? "Draining" : "Drain"}
            </button>
          )}
        </div>
        <div class="card-body">
          <ProblemNote problem={problem} />
          <KeyValue
            rows={[
              ...(data ? rowsOf(data, told?.store.kind) : []),
              ["You are", who.value?.name],
              ["You may", who.value?.roles.join(", ")],
            ]}
          />
        </div>
        {isDraining && data && <Drain server={data} close={() => setDraining(false)} />}
      </section>
      {data?.fleet && <FleetCard />}
    </>
  );
}

const nothing = () => Promise.resolve(undefined);

function rowsOf(server: Server, kind: string | undefined): [string, ComponentChildren][] {
  const { store } = server;
  const lasts = store.durable ? "jobs outlast a restart" : "background jobs are gone after a restart";
  return [
    ["Version", `geartrain ${server.version}`],
    ["Gearman at", <code>{server.addresses.join(", ")}</code>],
    [
      "Store",
      <>
        {kind ?? "here"}: {lasts}
        {store.trouble && <p class="fault">{store.trouble}</p>}
      </>,
    ],
    ["Memory", server.max_memory ? `${bytes(server.memory)} of ${bytes(server.max_memory)}` : bytes(server.memory)],
    ["Running for", <span title={`since ${exactTime(server.started)}`}>{duration(server.uptime)}</span>],
    ["Process", String(server.pid)],
  ];
}

function Drain({ server, close }: { server: Server; close: () => void }) {
  return (
    <Confirm
      title="Drain the job server"
      action="Drain and stop"
      typed="drain"
      dangerous
      done="The job server takes no more jobs, and stops when what runs has ended"
      run={() => post("/api/v1/server/drain")}
      close={close}
    >
      <p>
        It takes no more connections and jobs, waits for <strong>{plural(server.counts.running, "running job")}</strong>
        , and stops. This page has nothing to show then until somebody starts it again.
      </p>
      {!server.store.durable && (
        <p>
          <Badge state="failed">not durable</Badge> What waits in memory is lost:{" "}
          {plural(server.counts.queued + server.counts.blocked + server.counts.delayed, "job")}.
        </p>
      )}
    </Confirm>
  );
}
