/** A heat map: how long jobs have run, over time. Drawn on a canvas, since it has thousands of cells. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Schemas } from "../api/client";
import { count, duration, time } from "../format";
import { isDark } from "../theme";
import { colour } from "./chart";

type Told = Schemas["HeatMap"];

const LEFT = 56;
const BOTTOM = 22;
const LINE = 12; // pixels that a label needs

export function HeatMap({ title, told }: { title: string; told: Told | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [at, setAt] = useState<{ column: number; row: number } | null>(null);
  const rows = told ? rowsOf(told) : [0, 0];
  const dark = isDark.value;
  useEffect(() => {
    const element = canvas.current?.parentElement;
    if (!element) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the theme has other colours
  useEffect(() => {
    if (canvas.current && told && width) draw(canvas.current, told, rowsOf(told));
  }, [told, width, dark]);
  const isEmpty = told !== undefined && !told.counts.some((column) => column?.some(Boolean));
  const look = (event: MouseEvent) => {
    if (!told || !canvas.current) return setAt(null);
    const box = canvas.current.getBoundingClientRect();
    const [low, high] = rows as [number, number];
    const column = Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT)) * told.times.length);
    const row = high - Math.floor(((event.clientY - box.top) / (box.height - BOTTOM)) * (high - low + 1));
    setAt(column >= 0 && column < told.times.length && row >= low && row <= high ? { column, row } : null);
  };
  return (
    <figure class="card">
      <figcaption class="chart-head">
        <h2>{title}</h2>
        <span class="small muted">{told && at ? wordsOf(told, at.column, at.row) : "The stronger, the more jobs"}</span>
      </figcaption>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the numbers are in the charts beside it as well */}
      <div class="plot" style={{ "--height": "14rem" }} onMouseMove={look} onMouseLeave={() => setAt(null)}>
        <canvas ref={canvas} role="img" aria-label={`${title}, over time`} style={{ width: "100%", height: "100%" }} />
        {isEmpty && <div class="empty-plot">No job has ended in this time</div>}
      </div>
    </figure>
  );
}

/** The first and the last bucket that have something, and some around them. */
function rowsOf(told: Told): [number, number] {
  let low = told.bounds.length;
  let high = 0;
  for (const column of told.counts) {
    column?.forEach((value, row) => {
      if (value) {
        low = Math.min(low, row);
        high = Math.max(high, row);
      }
    });
  }
  if (low > high) return [0, 8];
  return [Math.max(0, Math.min(low, high - 5)), Math.min(told.bounds.length, Math.max(high, low + 5))];
}

function boundsOf(told: Told, row: number): string {
  const below = told.bounds[row - 1];
  const bound = told.bounds[row];
  if (bound === undefined) return `above ${duration(below)}`;
  return below === undefined ? `up to ${duration(bound)}` : `${duration(below)} to ${duration(bound)}`;
}

function wordsOf(told: Told, column: number, row: number): string {
  return `${time(told.times[column])}: ${count(told.counts[column]?.[row] ?? 0)} ran ${boundsOf(told, row)}`;
}

function draw(canvas: HTMLCanvasElement, told: Told, [low, high]: [number, number]): void {
  const scale = devicePixelRatio;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(scale, scale);
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const columns = told.times.length;
  const cellWidth = (width - LEFT) / columns;
  const cellHeight = (height - BOTTOM) / (high - low + 1);
  const most = Math.max(1, ...told.counts.map((column) => Math.max(0, ...(column ?? [0]))));
  context.fillStyle = colour("running");
  told.counts.forEach((column, at) => {
    column?.forEach((value, row) => {
      if (!value || row < low || row > high) return;
      context.globalAlpha = 0.12 + 0.88 * (Math.log1p(value) / Math.log1p(most));
      context.fillRect(
        LEFT + at * cellWidth,
        (high - row) * cellHeight + 0.5,
        Math.max(cellWidth - 0.5, 1),
        cellHeight - 1,
      );
    });
  });
  context.globalAlpha = 1;
  context.fillStyle = colour("muted");
  context.textAlign = "right";
  context.textBaseline = "middle";
  let above = Number.NEGATIVE_INFINITY;
  for (let row = Math.min(high, told.bounds.length - 1); row >= low; row--) {
    const y = Math.max((high - row) * cellHeight, 6);
    if (y - above < LINE) continue; // the highest stands a little lower than its line
    context.fillText(duration(told.bounds[row]), LEFT - 8, y);
    above = y;
  }
  context.textBaseline = "alphabetic";
  const each = Math.ceil(columns / Math.max(2, Math.floor((width - LEFT) / 90)));
  for (let at = each; at < columns; at += each) {
    context.textAlign = "center";
    context.fillText(time(told.times[at]).replace(/:\d\d$/, ""), LEFT + at * cellWidth, height - 5);
  }
}
