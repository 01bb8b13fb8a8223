/** Which screen is shown: the path below /dashboard, and the query, which holds filters, spans and orders. */
import { signal } from "@preact/signals";

export const BASE = "/dashboard";

export interface Place {
  /** Below the base, without a slash at the end: "/functions/resize". */
  path: string;
  query: URLSearchParams;
}

export const place = signal<Place>(placeNow());

function placeNow(): Place {
  const path = location.pathname.slice(BASE.length).replace(/\/+$/, "");
  return { path: path || "/", query: new URLSearchParams(location.search) };
}

/** Go to a path of this server, such as "/dashboard/functions?sort=name". */
export function go(url: string, how: "push" | "replace" = "push"): void {
  history[how === "push" ? "pushState" : "replaceState"](null, "", url);
  place.value = placeNow();
}

/** The URL of a screen: names in it are encoded, and what is empty is left out of the query. */
export function to(parts: readonly string[], query: Record<string, string | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, value);
  const text = search.toString();
  return `${BASE}/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Change some values of the query; an empty one is taken out. */
export function setQuery(values: Record<string, string>, how: "push" | "replace" = "replace"): void {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  go(`${location.pathname}${text ? `?${text}` : ""}`, how);
}

/** A value of the query, or what counts without one. */
export function fromQuery<T extends string>(name: string, fallback: T, allowed?: readonly T[]): T {
  const value = place.value.query.get(name) as T | null;
  return value !== null && (!allowed || allowed.includes(value)) ? value : fallback;
}

/** The parts of a path that a pattern such as "/functions/:name" names; null if it does not fit. */
export function match(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split("/");
  const given = path.split("/");
  if (wanted.length !== given.length) return null;
  const found: Record<string, string> = {};
  for (const [at, part] of wanted.entries()) {
    const text = decoded(given[at] ?? "");
    if (part.startsWith(":")) found[part.slice(1)] = text;
    else if (part !== text) return null;
  }
  return found;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Have links to screens and the browser's back and forward change the place, without loading the page anew. */
export function listen(): void {
  addEventListener("popstate", () => {
    place.value = placeNow();
  });
  document.addEventListener("click", (event) => {
    if (
      event.defaultPrevented ||
      event.button !== 0 ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey ||
      event.altKey
    )
      return;
    const link = (event.target as Element).closest("a");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
    event.preventDefault();
    go(link.href);
  });
}
