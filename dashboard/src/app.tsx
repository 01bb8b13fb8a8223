/** What is around all screens, and which one is shown. */
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { EmptyState, PageHead } from "./components/basics";
import { Shell } from "./components/shell";
import { match, place } from "./router";
import { SCREENS, type Screen, type Shown } from "./screens";
import { Login } from "./screens/login";
import { unreachable, who } from "./session";

export function App() {
  if (who.value === null) return <Login />;
  if (who.value === undefined) return unreachable.value ? <Unreachable /> : null;
  return (
    <Shell>
      <Current />
    </Shell>
  );
}

const loaded = new Map<Screen, ComponentType<Shown>>();

function Current() {
  const { path } = place.value;
  const [, setCount] = useState(0);
  const [problem, setProblem] = useState("");
  const found = find(path);
  const screen = found?.screen;
  const Shown = screen && loaded.get(screen);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another screen begins at its top
  useEffect(() => {
    scrollTo(0, 0);
  }, [path]);
  useEffect(() => {
    if (!screen || Shown) return;
    screen
      .load()
      .then((module) => {
        loaded.set(screen, module.default);
        setCount((count) => count + 1);
      })
      .catch(() => setProblem("This page could not be loaded: the job server may have been replaced. Load it anew."));
  }, [screen, Shown]);
  if (!found) return <NotFound />;
  if (!Shown) return problem ? <EmptyState icon="alert" title={problem} /> : null;
  return <Shown key={path} {...found.parts} />;
}

function find(path: string): { screen: Screen; parts: Shown } | null {
  for (const screen of SCREENS) {
    const parts = match(screen.pattern, path);
    if (parts) return { screen, parts };
  }
  return null;
}

function NotFound() {
  return (
    <>
      <PageHead title="Not found" />
      <EmptyState icon="search" title="There is no such page">
        The link may be of another version. <a href="/dashboard/">Go to the overview</a>
      </EmptyState>
    </>
  );
}

function Unreachable() {
  return (
    <main class="login">
      <EmptyState icon="alert" title="The job server does not answer">
        {unreachable.value} <a href={location.href}>Try again</a>
      </EmptyState>
    </main>
  );
}
