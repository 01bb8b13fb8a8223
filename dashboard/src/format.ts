/** Numbers, times and sizes as people read them. What is not known is a dash. */

export const NOTHING = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

type Maybe = number | null | undefined;

/** A count: 1,234, and from a million on 1.2 M. */
export function count(value: Maybe): string {
  if (value === null || value === undefined) return NOTHING;
  const size = Math.abs(value);
  if (size < 999_950) return whole.format(value);
  if (size < 999_950_000) return `${tenth.format(value / 1e6)} M`;
  return `${tenth.format(value / 1e9)} G`;
}

/** How many a second: with a decimal while they are few. */
export function rate(value: Maybe): string {
  if (value === null || value === undefined) return NOTHING;
  return Math.abs(value) > 0 && Math.abs(value) < 99.95 ? tenth.format(value) : count(value);
}

/** A share of one in percent. */
export function percent(share: Maybe): string {
  if (share === null || share === undefined) return NOTHING;
  const value = 100 * share;
  if (value > 0 && value < 0.05) return "< 0.1 %";
  return `${value > 0 && value < 99.95 ? tenth.format(value) : whole.format(value)} %`;
}

const STEPS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
] as const;

/** Seconds as a span: 350 ms, 3.2 s, 4 min 10 s, 2 d 4 h. */
export function duration(seconds: Maybe): string {
  if (seconds === null || seconds === undefined) return NOTHING;
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return "< 1 ms";
  if (seconds < 0.9995) return `${seconds < 0.00995 ? tenth.format(1000 * seconds) : whole.format(1000 * seconds)} ms`;
  if (seconds < 9.95) return `${tenth.format(seconds)} s`;
  const rounded = Math.round(seconds);
  const at = STEPS.findIndex(([, size]) => rounded >= size);
  const [unit, size] = STEPS[at] ?? STEPS[3];
  const next = STEPS[at + 1];
  const rest = next ? Math.floor((rounded % size) / next[1]) : 0;
  return `${Math.floor(rounded / size)} ${unit}${next && rest ? ` ${rest} ${next[0]}` : ""}`;
}

/** Bytes with binary units: 512 B, 1.5 KiB, 64 MiB. */
export function bytes(value: Maybe): string {
  if (value === null || value === undefined) return NOTHING;
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1023.95)
      return `${unit === "B" || size >= 99.95 || size === 0 ? whole.format(size) : tenth.format(size)} ${unit}`;
    size /= 1024;
  }
  return `${tenth.format(size)} TiB`;
}

/** A Unix time as the clock shows it, with the day if that is not today. */
export function time(seconds: Maybe): string {
  if (!seconds) return NOTHING;
  const date = new Date(1000 * seconds);
  return date.toDateString() === new Date().toDateString() ? clock.format(date) : day.format(date);
}

/** A Unix time in full, for titles. */
export function exactTime(seconds: Maybe): string {
  return seconds ? full.format(new Date(1000 * seconds)) : NOTHING;
}

/** "1 job", "2 jobs". */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A name as a shell takes it. */
export function quoted(name: string): string {
  return /^[\w.:/-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
}

/** How long ago something was; what was just now does not change all the time. */
export function ago(seconds: Maybe): string {
  if (seconds === null || seconds === undefined) return NOTHING;
  if (seconds < 1) return "just now";
  return seconds < 10 ? `${Math.floor(seconds)} s ago` : `${duration(seconds)} ago`;
}
