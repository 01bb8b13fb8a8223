/** What schedules say in words, and their runs in the hours to come, for the time line. */

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DAY_NAMES = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ALIASES: Record<string, string> = {
  "@hourly": "0 * * * *",
  "@daily": "0 0 * * *",
  "@weekly": "0 0 * * 0",
  "@monthly": "0 0 1 * *",
  "@yearly": "0 0 1 1 *",
};

/** Which values each field of an expression has; the job server has judged it before. */
export interface Cron {
  minutes: ReadonlySet<number>;
  hours: ReadonlySet<number>;
  days: ReadonlySet<number>;
  months: ReadonlySet<number>;
  weekdays: ReadonlySet<number>;
  /** Whether day of month and day of week must both match, or one is enough. */
  needsBoth: boolean;
}

export function readCron(expression: string): Cron | null {
  const fields = fieldsOf(expression);
  if (!fields) return null;
  const [minute, hour, day, month, weekday] = fields;
  const weekdays = valuesOf(weekday, 0, 7, DAYS, 0);
  return {
    minutes: valuesOf(minute, 0, 59),
    hours: valuesOf(hour, 0, 23),
    days: valuesOf(day, 1, 31),
    months: valuesOf(month, 1, 12, MONTHS, 1),
    weekdays: new Set([...weekdays].map((value) => value % 7)),
    needsBoth: day.startsWith("*") || weekday.startsWith("*"),
  };
}

function fieldsOf(expression: string): [string, string, string, string, string] | null {
  const text = expression.trim().toLowerCase();
  const fields = (ALIASES[text] ?? text).split(/\s+/);
  return fields.length === 5 ? (fields as [string, string, string, string, string]) : null;
}

function valuesOf(field: string, least: number, most: number, names: string[] = [], first = 0): Set<number> {
  const number = (text: string) => (names.includes(text) ? names.indexOf(text) + first : Number(text));
  const values = new Set<number>();
  for (const part of field.split(",")) {
    const [range = "", step = "1"] = part.split("/");
    const [from = "", until = from] = range.split("-");
    const [begin, end] = range === "*" ? [least, most] : [number(from), number(until)];
    for (let value = begin; value <= end; value += Math.max(Number(step), 1)) values.add(value);
  }
  return values;
}

/** Whether it runs in the minute of a time; `date` shows the clock of its zone as if it were UTC. */
export function fits(cron: Cron, date: Date): boolean {
  if (!cron.minutes.has(date.getUTCMinutes()) || !cron.hours.has(date.getUTCHours())) return false;
  if (!cron.months.has(date.getUTCMonth() + 1)) return false;
  const isDay = cron.days.has(date.getUTCDate());
  const isWeekday = cron.weekdays.has(date.getUTCDay());
  return cron.needsBoth ? isDay && isWeekday : isDay || isWeekday;
}

const pad = (value: string | number) => String(value).padStart(2, "0");
const isNumber = (text: string) => /^\d+$/.test(text);

/** When a schedule runs, in words where that is simple; null: the expression says it best. */
export function inWords(keys: { cron?: string; every?: string }): string | null {
  if (keys.every) return intervalInWords(keys.every);
  const fields = fieldsOf(keys.cron ?? "");
  if (!fields) return null;
  const [minute, hour, day, month, weekday] = fields;
  const isAnyDay = day === "*" && month === "*" && weekday === "*";
  const step = /^\*\/(\d+)$/;
  if (isAnyDay && hour === "*") {
    if (minute === "*") return "every minute";
    const every = step.exec(minute)?.[1];
    if (every && 60 % Number(every) === 0) return every === "1" ? "every minute" : `every ${every} minutes`;
    if (minute === "0") return "every hour";
    return isNumber(minute) ? `every hour at :${pad(minute)}` : null;
  }
  if (!isNumber(minute)) return null;
  const every = step.exec(hour)?.[1];
  if (isAnyDay && every && 24 % Number(every) === 0) {
    return `every ${every} hours${minute === "0" ? "" : ` at :${pad(minute)}`}`;
  }
  if (!/^\d+(,\d+)*$/.test(hour)) return null;
  const at = `at ${joined(hour.split(",").map((each) => `${pad(each)}:${pad(minute)}`))}`;
  if (isAnyDay) return `every day ${at}`;
  if (month !== "*") {
    const name = isNumber(month) ? MONTHS[Number(month) - 1] : month;
    if (!name || !MONTHS.includes(name) || !isNumber(day) || weekday !== "*") return null;
    return `every ${day} ${capital(name)} ${at}`;
  }
  if (weekday === "*") return isNumber(day) ? `on day ${day} of each month ${at}` : null;
  if (day !== "*") return null;
  const days = weekdaysInWords(weekday);
  return days && `${days} ${at}`;
}

function weekdaysInWords(field: string): string | null {
  const name = (text: string) => DAY_NAMES[isNumber(text) ? Number(text) % 7 : DAYS.indexOf(text)];
  const range = /^(\w+)-(\w+)$/.exec(field);
  const names = (range ? range.slice(1) : field.split(",")).map(name);
  if (names.includes(undefined)) return null;
  return range ? `${names[0]} to ${names[1]}` : `every ${joined(names as string[])}`;
}

function joined(words: string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
const UNITS: Record<string, string> = { s: "second", m: "minute", h: "hour", d: "day", w: "week" };

function intervalInWords(span: string): string {
  const found = /^(\d+)([smhdw])$/.exec(span);
  if (!found) return `every ${span.replace(/(\d)([a-z])/gi, "$1 $2").replace(/([a-z])(\d)/gi, "$1 $2")}`;
  const unit = UNITS[found[2] ?? ""];
  return found[1] === "1" ? `every ${unit}` : `every ${found[1]} ${unit}s`;
}

/** Of so many equally long parts of a time line, in which there is a run. Times are Unix times. */
export function partsWithRuns(
  told: { next_runs: readonly string[]; keys: { cron?: string; every?: string } },
  from: number,
  until: number,
  count: number,
): boolean[] {
  const parts = new Array<boolean>(count).fill(false);
  const size = (until - from) / count;
  const note = (time: number) => {
    if (time >= from && time < until) parts[Math.floor((time - from) / size)] = true;
  };
  const known = told.next_runs.map((text) => Date.parse(text) / 1000);
  known.forEach(note);
  const last = known.at(-1);
  if (last === undefined || last >= until) return parts;
  if (told.keys.every) {
    const step = last - (known.at(-2) ?? last);
    if (step <= 0) return parts;
    // Where more than one run falls into a part there is one in each.
    for (let time = last; time < until; time += Math.max(step, size)) note(time);
    return parts;
  }
  const cron = readCron(told.keys.cron ?? "");
  if (!cron) return parts;
  // The clock as it is at the last run that is known: a change of the clocks behind that is an hour on the time line.
  const offset = offsetOf(told.next_runs.at(-1) ?? "");
  for (let time = 60 * Math.floor(last / 60) + 60; time < until; time += 60) {
    if (fits(cron, new Date(1000 * (time + offset)))) note(time);
  }
  return parts;
}

/** By how many seconds a clock is before UTC, from the end of a time such as 2027-03-01T02:30:00+01:00. */
export function offsetOf(text: string): number {
  const found = /([+-])(\d\d):(\d\d)$/.exec(text);
  if (!found) return 0;
  return (found[1] === "-" ? -1 : 1) * (3600 * Number(found[2]) + 60 * Number(found[3]));
}
