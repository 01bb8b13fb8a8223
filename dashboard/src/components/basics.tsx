/** The small parts that screens are made of. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Problem } from "../api/client";
import type { Values } from "../history";
import { Icon, type IconName } from "./icons";
import { toast } from "./toast";

/** Where a job stands, or how a function is; each has its colour in style.css. */
export type State =
  | "queued"
  | "running"
  | "completed"
  | "failed"
  | "retried"
  | "dead"
  | "paused"
  | "delayed"
  | "blocked";

/** The style that gives a part the colour of a state. */
export const coloured = (state: State | "danger" | "accent" | "muted"): Record<string, string> => ({
  "--c": `var(--${state})`,
});

export function Badge({ state, children }: { state: State; children?: ComponentChildren }) {
  return (
    <span class="badge" style={coloured(state)}>
      {children ?? state}
    </span>
  );
}

/** A large number with its curve. `alarming`: it should not be so. */
export function BigNumber(props: {
  label: string;
  value: string;
  beside?: string | undefined;
  state: State;
  values?: Values | undefined;
  alarming?: boolean;
  href?: string;
}) {
  const inner = (
    <>
      <div class="label">{props.label}</div>
      <div class={props.alarming ? "value alarming" : "value"}>
        {props.value}
        {props.beside && <span class="beside">{props.beside}</span>}
      </div>
      <Sparkline values={props.values} />
    </>
  );
  const style = coloured(props.state);
  return props.href ? (
    <a class="card number" style={style} href={props.href}>
      {inner}
    </a>
  ) : (
    <div class="card number" style={style}>
      {inner}
    </div>
  );
}

/** A curve without axes; what is not known is a gap. */
export function Sparkline({ values = [] }: { values?: Values | undefined }) {
  const most = Math.max(...values.map((value) => value ?? 0), 1e-9);
  const width = Math.max(values.length - 1, 1);
  let line = "";
  let area = "";
  let from = -1;
  values.forEach((value, at) => {
    if (value === null) return;
    const isFirst = at === 0 || values[at - 1] === null;
    const y = (29 - 26 * (value / most)).toFixed(1);
    line += `${isFirst ? "M" : "L"}${at} ${y}`;
    if (isFirst) {
      from = at;
      area += `M${at} 32`;
    }
    area += `L${at} ${y}`;
    if (at === values.length - 1 || values[at + 1] === null) area += `L${at} 32L${from} 32Z`;
  });
  return (
    <svg class="spark" viewBox={`0 0 ${width} 32`} preserveAspectRatio="none" aria-hidden="true" focusable="false">
      <path d={area} fill="currentColor" fill-opacity="0.1" />
      <path d={line} fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" />
    </svg>
  );
}

/** One of several ways to look at the same; with `pick` for the one that is chosen. */
export function Tabs<T extends string>(props: {
  label: string;
  options: readonly (readonly [T, string])[];
  picked: T;
  pick: (option: T) => void;
}) {
  return (
    <fieldset class="tabs" aria-label={props.label}>
      {props.options.map(([option, text]) => (
        <button key={option} type="button" aria-pressed={option === props.picked} onClick={() => props.pick(option)}>
          {text}
        </button>
      ))}
    </fieldset>
  );
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    if (!isDone) return;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [isDone]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
    } catch {
      toast("This browser does not let a page copy here: select the text instead", "failed");
    }
  };
  return (
    <button type="button" class="button bare" aria-label={isDone ? "Copied" : label} title={label} onClick={copy}>
      <Icon name={isDone ? "check" : "copy"} />
    </button>
  );
}

/** A command for a shell, to be copied. */
export function Command({ text }: { text: string }) {
  return (
    <div class="command">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is to be reached by the keyboard */}
      <code tabIndex={0}>{text}</code>
      <Copy text={text} label="Copy the command" />
    </div>
  );
}

/** What stands where there is nothing yet: what would be here, and how to get there. */
export function EmptyState(props: { icon: IconName; title: string; children?: ComponentChildren; command?: string }) {
  return (
    <div class="empty">
      <Icon name={props.icon} />
      <h2>{props.title}</h2>
      {props.children && <p>{props.children}</p>}
      {props.command && <Command text={props.command} />}
    </div>
  );
}

export function ProblemNote({ problem }: { problem: Problem | null }) {
  if (!problem) return null;
  return (
    <div class="problem" role="alert">
      <Icon name="alert" />
      <span>{problem.message}</span>
    </div>
  );
}

export function KeyValue({ rows }: { rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="key-value">
      {rows.map(([key, value]) => (
        <>
          <dt key={`${key} key`}>{key}</dt>
          <dd key={key}>{value}</dd>
        </>
      ))}
    </dl>
  );
}

/** The head of a screen. It is focused when the screen opens, so that a screen reader begins there. */
export function PageHead({
  title,
  beside,
  children,
}: {
  title: string;
  beside?: ComponentChildren;
  children?: ComponentChildren;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} – geartrain`;
    heading.current?.focus({ preventScroll: true });
  }, [title]);
  return (
    <header class="page-head">
      <h1 ref={heading} tabIndex={-1}>
        {title}
      </h1>
      {beside}
      {children && <div class="end">{children}</div>}
    </header>
  );
}

/** A field that finds; "/" goes there from anywhere. */
export function Search(props: { label: string; value: string; change: (value: string) => void }) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key !== "/" || (event.target as Element).closest("input, textarea, select, dialog")) return;
      event.preventDefault();
      input.current?.focus();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
  return (
    <div class="search">
      <Icon name="search" />
      <input
        ref={input}
        class="input"
        type="search"
        aria-label={props.label}
        placeholder={props.label}
        title="Press / to come here"
        value={props.value}
        onInput={(event) => props.change(event.currentTarget.value)}
      />
    </div>
  );
}
