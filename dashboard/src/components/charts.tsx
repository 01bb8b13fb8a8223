/** The charts of a function, or of all together, and how far back they go, which stands in the URL. */
import { count, duration, rate } from "../format";
import { type Curves, SPANS, type Span } from "../history";
import { fromQuery, setQuery } from "../router";
import { type State, Tabs } from "./basics";
import { Chart, useCrosshair } from "./chart";

const SPAN_NAMES = Object.keys(SPANS) as Span[];
const USUAL = "15m";

export const spanFromQuery = () => fromQuery<Span>("span", USUAL, SPAN_NAMES);

export function SpanTabs() {
  return (
    <Tabs
      label="How far back"
      options={SPAN_NAMES.map((name) => [name, SPANS[name].label] as const)}
      picked={spanFromQuery()}
      pick={(name) => setQuery({ span: name === USUAL ? "" : name })}
    />
  );
}

/** The charts of a function, or of all together. */
export function Charts({ curves }: { curves: Curves | undefined }) {
  const crosshair = useCrosshair();
  const series = curves?.series ?? {};
  const shared = { times: curves?.times, crosshair };
  const percentiles = (name: string, state: State) =>
    (["p99", "p95", "p50"] as const).map((percentile, at) => ({
      label: percentile,
      state,
      kind: "line" as const,
      values: series[`${name}_${percentile}`],
      strength: [0.45, 0.7, 1][at] ?? 1,
    }));
  return (
    <div class="charts">
      <Chart
        {...shared}
        title="Throughput"
        isWide
        height="13rem"
        format={(value) => (value === null || value === undefined ? rate(value) : `${rate(value)}/s`)}
        lines={[
          { label: "completed", state: "completed", kind: "area", values: series["completed"] },
          { label: "retried", state: "retried", kind: "area", values: series["retried"] },
          { label: "failed", state: "failed", kind: "area", values: series["failed"] },
          { label: "submitted", state: "queued", kind: "line", values: series["submitted"], dash: [4, 3] },
        ]}
      />
      <Chart
        {...shared}
        title="Depth"
        format={count}
        isWhole
        lines={[
          { label: "running", state: "running", kind: "area", values: series["running"] },
          { label: "waiting", state: "queued", kind: "area", values: series["waiting"] },
        ]}
      />
      <Chart
        {...shared}
        title="Workers"
        format={count}
        isWhole
        lines={[
          { label: "busy", state: "running", kind: "area", values: series["busy"] },
          { label: "workers", state: "muted", kind: "line", values: series["workers"] },
        ]}
      />
      <Chart
        {...shared}
        title="Waiting time"
        format={duration}
        logarithmic
        lines={percentiles("waiting_time", "delayed")}
      />
      <Chart
        {...shared}
        title="Running time"
        format={duration}
        logarithmic
        lines={percentiles("running_time", "running")}
      />
    </div>
  );
}
