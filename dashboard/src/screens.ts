/** All screens: a screen is one line here, and a module of its own that is loaded when it is opened. */
import type { ComponentType } from "preact";
import type { State } from "./components/basics";
import type { IconName } from "./components/icons";
import type { Overview } from "./live";
import type { Role } from "./session";

/** What a screen is given: what its pattern names. */
export type Shown = Record<string, string>;

export interface Screen {
  /** The path below /dashboard; ":name" stands for any part. */
  pattern: string;
  load: () => Promise<{ default: ComponentType<Shown> }>;
  /** How the navigation shows it; a screen without it is reached from another one. */
  nav?: {
    title: string;
    icon: IconName;
    /** The role without which there is nothing to be done or seen there; read, if it is not said. */
    needs?: Role;
    /** Whether it has a place in the bar of a phone; there is room for four. */
    isFirst?: boolean;
    /** A number beside the title, if it is not 0. */
    tally?: (told: Overview) => { count: number; state: State };
  };
}

const load = (loaded: Promise<{ default: unknown }>) => loaded as Promise<{ default: ComponentType<Shown> }>;

export const SCREENS: readonly Screen[] = [
  {
    pattern: "/",
    load: () => load(import("./screens/overview")),
    nav: {
      title: "Overview",
      icon: "overview",
      isFirst: true,
      tally: (told) => ({ count: told.wrong.length + told.more, state: "failed" }),
    },
  },
  {
    pattern: "/functions",
    load: () => load(import("./screens/functions")),
    nav: { title: "Functions", icon: "functions", isFirst: true },
  },
  { pattern: "/functions/:name", load: () => load(import("./screens/function")) },
  {
    pattern: "/jobs",
    load: () => load(import("./screens/jobs")),
    nav: { title: "Jobs", icon: "jobs", isFirst: true },
  },
  { pattern: "/jobs/:handle", load: () => load(import("./screens/job")) },
  {
    pattern: "/dead",
    load: () => load(import("./screens/dead")),
    nav: {
      title: "Dead letters",
      icon: "dead",
      isFirst: true,
      tally: (told) => ({ count: told.dead, state: "dead" }),
    },
  },
  { pattern: "/dead/groups/:group", load: () => load(import("./screens/dead_group")) },
  { pattern: "/dead/:handle", load: () => load(import("./screens/letter")) },
  {
    pattern: "/connections",
    load: () => load(import("./screens/connections")),
    nav: { title: "Workers", icon: "workers" },
  },
  { pattern: "/connections/:number", load: () => load(import("./screens/one")) },
  {
    pattern: "/schedules",
    load: () => load(import("./screens/schedules")),
    nav: { title: "Schedules", icon: "schedules" },
  },
  {
    pattern: "/playground",
    load: () => load(import("./screens/playground")),
    nav: { title: "Playground", icon: "playground", needs: "submit" },
  },
  {
    pattern: "/settings",
    load: () => load(import("./screens/settings")),
    nav: { title: "Settings", icon: "settings" },
  },
  {
    pattern: "/audit",
    load: () => load(import("./screens/audit")),
    nav: { title: "Audit", icon: "audit", needs: "operate" },
  },
];
