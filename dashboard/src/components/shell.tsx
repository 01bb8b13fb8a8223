/** What stands around every screen: navigation, the strip that tells how the job server is, and who is here. */
import { computed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { bytes, count, exactTime, percent, plural, time } from "../format";
import { connection, follow, isStale, overview } from "../live";
import { BASE, place } from "../router";
import { SCREENS, type Screen } from "../screens";
import { canLeave, leave, may, who } from "../session";
import { choose, type Theme, theme } from "../theme";
import { coloured } from "./basics";
import { Dialog } from "./dialog";
import { Icon, type IconName } from "./icons";
import { Toasts } from "./toast";

type Reached = Screen & { nav: NonNullable<Screen["nav"]> };

/** The screens of the navigation that are of use to whoever is here. */
const entries = computed(() =>
  SCREENS.filter((screen): screen is Reached => Boolean(screen.nav && may(screen.nav.needs ?? "read"))),
);

export function Shell({ children }: { children: ComponentChildren }) {
  useEffect(follow, []);
  const [isMore, setMore] = useState(false);
  return (
    <div class={isStale.value ? "shell stale" : "shell"}>
      <a class="skip" href="#page">
        Skip to the page
      </a>
      <aside class="sidebar">
        <a class="brand" href={`${BASE}/`}>
          <img src={`${BASE}/icon.svg`} alt="" width="24" height="24" /> geartrain
        </a>
        <nav class="nav" aria-label="Screens">
          {entries.value.map((screen) => (
            <Entry key={screen.pattern} screen={screen} />
          ))}
        </nav>
        <div class="sidebar-end">
          <ThemeSwitch />
          <Who />
        </div>
      </aside>
      <Strip />
      <main class="page" id="page" tabIndex={-1}>
        {children}
      </main>
      <nav class="tabbar" aria-label="Screens">
        {entries.value
          .filter(({ nav }) => nav.isFirst)
          .map(({ pattern, nav }) => (
            <a key={pattern} href={BASE + pattern} aria-current={isHere(pattern) ? "page" : undefined}>
              <Icon name={nav.icon} />
              {nav.title}
            </a>
          ))}
        <button type="button" aria-expanded={isMore} onClick={() => setMore(true)}>
          <Icon name="more" />
          More
        </button>
      </nav>
      {isMore && <More close={() => setMore(false)} />}
      <Toasts />
    </div>
  );
}

function isHere(pattern: string): boolean {
  const { path } = place.value;
  return path === pattern || (pattern !== "/" && path.startsWith(`${pattern}/`));
}

function Entry({ screen: { pattern, nav } }: { screen: Reached }) {
  const told = overview.value;
  const tally = told && nav.tally?.(told);
  return (
    <a href={BASE + pattern} aria-current={isHere(pattern) ? "page" : undefined}>
      <Icon name={nav.icon} />
      {nav.title}
      {tally && tally.count > 0 && (
        <span class="tally" style={coloured(tally.state)}>
          {count(tally.count)}
        </span>
      )}
    </a>
  );
}

/** The rest of the navigation on a phone. */
function More({ close }: { close: () => void }) {
  const { path } = place.value;
  const [from] = useState(path);
  useEffect(() => {
    if (path !== from) close();
  }, [path, from, close]);
  return (
    <Dialog title="geartrain" kind="sheet" close={close}>
      <div class="nav">
        {entries.value.map((screen) => (
          <Entry key={screen.pattern} screen={screen} />
        ))}
      </div>
      <div class="bar">
        <ThemeSwitch />
        <Who />
      </div>
    </Dialog>
  );
}

const THEMES: readonly [Theme, string, IconName][] = [
  ["system", "As the system has it", "screen"],
  ["light", "Light", "sun"],
  ["dark", "Dark", "moon"],
];

function ThemeSwitch() {
  return (
    <fieldset class="tabs" aria-label="Colours">
      {THEMES.map(([name, title, icon]) => (
        <button
          key={name}
          type="button"
          class="icon-only"
          title={title}
          aria-label={title}
          aria-pressed={theme.value === name}
          onClick={() => choose(name)}
        >
          <Icon name={icon} />
        </button>
      ))}
    </fieldset>
  );
}

function Who() {
  if (!canLeave.value) return null;
  const { name, roles } = who.value ?? { name: "", roles: [] };
  return (
    <>
      <span class="who small" title={`${name}: ${roles.join(", ")}`}>
        {name}
      </span>
      <button type="button" class="button bare" aria-label="Log out" title="Log out" onClick={() => void leave()}>
        <Icon name="leave" />
      </button>
    </>
  );
}

/** How the job server is, in one line; or since when nobody knows. */
function Strip() {
  const told = overview.value;
  const { state, since } = connection.value;
  if (state === "lost") {
    return (
      <div class="strip lost" role="alert">
        <Icon name="alert" />
        <span>
          Connection lost since {time(since / 1000)}, trying again
          <span class="second">. What is shown may be old.</span>
        </span>
      </div>
    );
  }
  if (!told) {
    return (
      <div class="strip">
        <span class="muted">Connecting</span>
      </div>
    );
  }
  const { store, memory } = told;
  const share = memory.limit ? memory.used / memory.limit : null;
  return (
    <section class="strip" aria-label="How the job server is">
      <span class="strip-item" style={coloured(told.ready ? "completed" : "failed")} title={told.reason}>
        <span class="dot beats" />
        <span>{told.draining ? "About to stop" : told.ready ? "Takes jobs" : "Takes no jobs"}</span>
      </span>
      <span class="strip-item">
        <span class="label">Host</span>
        {told.name}
      </span>
      <span
        class={store.state === "up" ? "strip-item second" : "strip-item"}
        style={coloured(store.state === "up" ? "completed" : "failed")}
      >
        <span class="label">Store</span>
        {store.kind}
        {store.state !== "up" && <span class="badge">{store.state}</span>}
      </span>
      <span class="strip-item second">
        <span class="label">Memory</span>
        {bytes(memory.used)}
        {share !== null && (
          <span class="meter" title={`${percent(share)} of ${bytes(memory.limit)}`}>
            <i style={{ width: `${100 * share}%`, ...(share > 0.8 ? coloured("failed") : {}) }} />
          </span>
        )}
      </span>
      <span class="strip-item third">
        <span class="label">Connections</span>
        {count(told.connections)}
      </span>
      <span class="strip-item third" title={plural(told.functions, "function")}>
        <span class="label">Functions</span>
        {count(told.functions)}
      </span>
      <span class="strip-item end muted second" title={exactTime(told.time)}>
        {told.version} · {time(told.time)}
      </span>
    </section>
  );
}
