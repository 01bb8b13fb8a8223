/** Short notes on what has been done, or could not be. */
import { signal } from "@preact/signals";
import { Problem } from "../api/client";
import { coloured } from "./basics";
import { Icon } from "./icons";

interface Toast {
  id: number;
  text: string;
  state: "completed" | "failed";
}

const SHOWN = { completed: 4000, failed: 8000 };
const toasts = signal<readonly Toast[]>([]);
let last = 0;

export function toast(text: string, state: Toast["state"] = "completed"): void {
  const id = ++last;
  toasts.value = [...toasts.value.slice(-3), { id, text, state }];
  setTimeout(() => {
    toasts.value = toasts.value.filter((one) => one.id !== id);
  }, SHOWN[state]);
}

/** Do something, and say how it went, perhaps by what was answered; whether it was done. */
export async function attempt<T>(action: () => Promise<T>, done: string | ((answer: T) => string)): Promise<boolean> {
  try {
    const answer = await action();
    toast(typeof done === "string" ? done : done(answer));
    return true;
  } catch (error) {
    toast(error instanceof Problem ? error.message : String(error), "failed");
    return false;
  }
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, state }) => (
        <div key={id} class="toast" style={coloured(state)}>
          <Icon name={state === "completed" ? "check" : "alert"} />
          <span>{text}</span>
        </div>
      ))}
    </div>
  );
}
