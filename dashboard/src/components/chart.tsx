/** Charts over time: stacked areas and lines, with one crosshair for all charts of a screen. */
import { effect, type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Values } from "../history";
import { isDark } from "../theme";
import { coloured, type State } from "./basics";

export interface Line {
  label: string;
  state: State | "muted";
  values: Values | undefined;
  /** `area` is stacked on the areas before it. */
  kind: "area" | "line";
  dash?: number[];
  /** 0 to 1: how strong it is drawn, of lines that share a colour. */
  strength?: number;
}

/** Where the crosshair of a screen's charts is; null: nowhere. */
export type Crosshair = Signal<number | null>;
export const useCrosshair = (): Crosshair => useSignal<number | null>(null);

interface Props {
  title: string;
  times: readonly number[] | undefined;
  lines: readonly Line[];
  format: (value: number | null | undefined) => string;
  crosshair: Crosshair;
  /** For what lies in very different sizes, such as times. */
  logarithmic?: boolean;
  /** What can be counted: half a worker is no label. */
  isWhole?: boolean;
  height?: string;
  isWide?: boolean;
}

export function Chart(props: Props) {
  const { title, times, lines, format, crosshair } = props;
  const at = crosshair.value;
  const isEmpty = times !== undefined && lines.every((line) => !line.values?.some((value) => value !== null));
  return (
    <figure class={`card ${props.isWide ? "wide" : ""}`}>
      <figcaption class="chart-head">
        <h2>{title}</h2>
        <ul class="legend">
          {lines.map((line) => (
            <li key={line.label} style={coloured(line.state)}>
              <span class={line.kind === "area" ? "swatch" : "swatch line"} style={{ opacity: line.strength ?? 1 }} />
              {line.label}
              <span class="amount">{format(valueAt(line.values, at))}</span>
            </li>
          ))}
        </ul>
      </figcaption>
      <div
        class="plot"
        style={props.height ? { "--height": props.height } : {}}
        role="img"
        aria-label={`${title}: ${summaryOf(lines, format)}`}
      >
        <Plot {...props} />
        {isEmpty && <div class="empty-plot">Nothing to show yet</div>}
      </div>
    </figure>
  );
}

function valueAt(values: Values | undefined, at: number | null): number | null {
  if (!values) return null;
  return at === null ? (values.findLast((value) => value !== null) ?? null) : (values[at] ?? null);
}

function summaryOf(lines: readonly Line[], format: Props["format"]): string {
  return lines
    .map(({ label, values }) => {
      const most = values?.reduce<number | null>(
        (best, value) => (value !== null && value > (best ?? -1) ? value : best),
        null,
      );
      return `${label} ${format(valueAt(values, null))}, at most ${format(most)}`;
    })
    .join("; ");
}

function Plot({ times = [], lines, format, crosshair, logarithmic = false, isWhole = false }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const data = dataOf(times, lines);
  const newest = useRef(data);
  newest.current = data;
  // What a plot is made of; its values change without that.
  const shape = JSON.stringify([logarithmic, isWhole, ...lines.map(({ label, state, kind }) => [label, state, kind])]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the shape stands for the lines
  const options = useMemo(() => optionsOf(lines, format, crosshair, logarithmic, isWhole), [shape, crosshair]);

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const sizeOf = () => ({ width: Math.max(element.clientWidth, 50), height: Math.max(element.clientHeight, 50) });
    const made = new uPlot({ ...options, ...sizeOf() }, newest.current, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize(sizeOf()));
    observer.observe(element);
    const stop = effect(() => {
      isDark.value;
      requestAnimationFrame(() => made.redraw(false, true));
    });
    const stopCrosshair = effect(() => {
      const at = crosshair.value;
      const left = at === null ? -10 : made.valToPos(made.data[0][at] ?? 0, "x");
      if (Math.abs((made.cursor.left ?? -10) - left) > 0.5) made.setCursor({ left, top: 0 }, false);
    });
    return () => {
      stop();
      stopCrosshair();
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [options, crosshair]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `data` is made anew from these
  useEffect(() => plot.current?.setData(data), [times, ...lines.map((line) => line.values)]);

  return <div ref={place} style={{ height: "100%" }} />;
}

/** Values for uPlot: of areas the sums of what is stacked. */
function dataOf(times: readonly number[], lines: readonly Line[]): uPlot.AlignedData {
  const below = times.map(() => 0);
  const columns = lines.map(({ kind, values }) => {
    if (kind === "line") return times.map((_, at) => values?.[at] ?? null);
    return times.map((_, at) => {
      const value = values?.[at];
      if (value === null || value === undefined) return null;
      below[at] = (below[at] ?? 0) + value;
      return below[at] ?? null;
    });
  });
  return [[...times], ...columns];
}

const colours = new Map<string, string>();
let coloursOfDark: boolean | null = null;

/** The colour of a variable of style.css, as a canvas understands it. */
export function colour(name: string): string {
  if (coloursOfDark !== isDark.value) colours.clear();
  coloursOfDark = isDark.value;
  let found = colours.get(name);
  if (!found) {
    const probe = document.createElement("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    found = getComputedStyle(probe).color;
    probe.remove();
    colours.set(name, found);
  }
  return found;
}

function faded(name: string, strength: number): string {
  return colour(name).replace(/^rgb\((.*)\)$/, (_, parts: string) => `rgba(${parts}, ${strength})`);
}

// From one label to the next; a tenth is the least that labels tell apart.
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();
const TENTHS = [0.1, 0.2, 0.5, ...WHOLE];
const TICKS = [0.0001, 0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000];

function optionsOf(
  lines: readonly Line[],
  format: Props["format"],
  crosshair: Crosshair,
  logarithmic: boolean,
  isWhole: boolean,
): Omit<uPlot.Options, "width" | "height"> {
  const areas = lines.flatMap(({ kind }, at) => (kind === "area" ? [at + 1] : []));
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const axis = {
    font,
    stroke: () => colour("muted"),
    grid: { stroke: () => colour("line"), width: 1 },
    ticks: { show: false },
  };
  return {
    legend: { show: false },
    padding: [6, 16, 0, 0],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
    scales: {
      x: { time: true },
      y: logarithmic
        ? { distr: 3, log: 10, range: (_, least, most) => logarithmicRange(least, most) }
        : { range: (_, __, most) => [0, Math.max(1.08 * (most ?? 0), 1)] },
    },
    axes: [
      { ...axis, size: 26, gap: 6, space: 95, values: timesOf },
      {
        ...axis,
        size: (_, values) => Math.max(40, 12 + 6.4 * Math.max(0, ...(values ?? []).map((text) => (text ?? "").length))),
        gap: 6,
        space: logarithmic ? 20 : 34,
        values: (_, splits) => splits.map((split) => format(split)),
        incrs: isWhole ? WHOLE : TENTHS,
        ...(logarithmic
          ? {
              splits: (_self: uPlot, __: number, least: number, most: number) =>
                TICKS.filter((tick) => tick >= least && tick <= most),
              filter: (_self: uPlot, splits: number[]) => splits,
            }
          : {}),
      },
    ],
    series: [
      {},
      ...lines.map(({ kind, state, dash, strength = 1 }) => ({
        stroke: () => faded(state, strength),
        width: kind === "area" && areas.length > 1 ? 0 : 1.5,
        points: { show: false },
        spanGaps: false,
        ...(kind === "area" ? { fill: () => faded(state, areas.length > 1 ? 0.6 : 0.18) } : {}),
        ...(dash ? { dash } : {}),
      })),
    ],
    bands: areas.slice(1).map((at, before) => ({ series: [at, areas[before] ?? 1] as [number, number] })),
    hooks: {
      setCursor: [
        (self) => {
          const isOver = (self.cursor.left ?? -1) >= 0;
          const at = isOver ? (self.cursor.idx ?? null) : null;
          if (self.over.matches(":hover") || !isOver) if (crosshair.peek() !== at) crosshair.value = at;
        },
      ],
    },
  };
}

function logarithmicRange(least: number | null, most: number | null): [number, number] {
  const low = TICKS.findLast((tick) => tick <= (least || 0.001)) ?? 0.0001;
  const high = TICKS.find((tick) => tick >= (most || 1)) ?? 360_000;
  return [low, high > low ? high : 10 * low];
}

const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

function timesOf(_: uPlot, splits: number[], __: number, ___: number, step: number): string[] {
  return splits.map((split) => (step >= 86_400 ? day : hour).format(new Date(1000 * split)));
}
