/** Who uses the dashboard, and what they may do. */
import { computed, signal } from "@preact/signals";
import { csrf, get, onUnknown, Problem, post, remove, type Schemas } from "./api/client";

type Who = Schemas["Who"];
export type Role = "read" | "submit" | "operate";

/** `null`: nobody is known, and a token is wanted; `undefined`: it is not known yet. */
export const who = signal<Who | null | undefined>(undefined);

/** Why it could not be found out who asks. */
export const unreachable = signal("");

/** Whether this is a session that can be ended: without tokens everybody may do everything, and there is none. */
export const canLeave = computed(() => Boolean(who.value?.csrf));

/** Whether the user has a role. Screens show no button that would be refused. */
export function may(role: Role): boolean {
  return who.value?.roles.includes(role) ?? false;
}

onUnknown.call = () => set(null);

function set(found: Who | null): void {
  csrf.token = found?.csrf ?? "";
  who.value = found;
  unreachable.value = "";
}

/** Find out who asks. */
export async function look(): Promise<void> {
  try {
    set(await get("/api/v1/session"));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) set(null);
    else unreachable.value = error.message;
  }
}

/** Begin a session. Throws Problem. */
export async function enter(token: string): Promise<void> {
  set(await post("/api/v1/session", { body: { token } }));
}

export async function leave(): Promise<void> {
  await remove("/api/v1/session").catch(() => {});
  set(null);
}
