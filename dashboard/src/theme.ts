/** Light or dark: as the system has it, unless the user has chosen. */
import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const KEY = "geartrain.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** What the user has chosen. */
export const theme = signal<Theme>(stored());

/** Which one is shown. */
export const isDark = signal(false);

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

export function choose(chosen: Theme): void {
  theme.value = chosen;
  try {
    if (chosen === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // A browser that keeps nothing forgets the choice with the tab.
  }
}

const update = () => {
  document.documentElement.dataset["theme"] = theme.value;
  isDark.value = theme.value === "dark" || (theme.value === "system" && system.matches);
};
system.addEventListener("change", update);
effect(update);
