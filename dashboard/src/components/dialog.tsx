/** Dialogs: the browser's own, which keep the focus and close with Escape. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { attempt } from "./toast";

/** A dialog that is open as long as it is drawn. */
export function Dialog(props: {
  title: string;
  close: () => void;
  children: ComponentChildren;
  foot?: ComponentChildren;
  kind?: "large" | "sheet";
  submit?: () => void;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const title = useId();
  useEffect(() => {
    dialog.current?.showModal();
    // Where the body scrolls the browser would begin with that.
    dialog.current?.querySelector<HTMLElement>("input, select, textarea")?.focus();
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes a dialog, as the browser has it
    <dialog
      ref={dialog}
      class={props.kind}
      aria-labelledby={title}
      onClose={props.close}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          props.submit?.();
        }}
      >
        <div class="dialog-head">
          <h2 id={title}>{props.title}</h2>
        </div>
        <div class="dialog-body">{props.children}</div>
        {props.foot && <div class="dialog-foot">{props.foot}</div>}
      </form>
    </dialog>
  );
}

/** Asks whether something is really to be done; with `typed`, what has to be written for it. */
export function Confirm<T>(props: {
  title: string;
  action: string;
  typed?: string;
  dangerous?: boolean;
  /** Where what will happen is not known yet. */
  isWaiting?: boolean;
  done: string | ((answer: T) => string);
  run: () => Promise<T>;
  close: (isDone: boolean) => void;
  children: ComponentChildren;
}) {
  const [typed, setTyped] = useState("");
  const [isBusy, setBusy] = useState(false);
  const field = useId();
  const isReady = !isBusy && !props.isWaiting && (props.typed === undefined || typed === props.typed);
  const run = async () => {
    if (!isReady) return;
    setBusy(true);
    const isDone = await attempt(props.run, props.done);
    setBusy(false);
    if (isDone) props.close(true);
  };
  return (
    <Dialog
      title={props.title}
      close={() => props.close(false)}
      submit={run}
      foot={
        <>
          <button type="button" class="button" onClick={() => props.close(false)}>
            Cancel
          </button>
          <button type="submit" class={`button primary ${props.dangerous ? "danger" : ""}`} disabled={!isReady}>
            {props.action}
          </button>
        </>
      }
    >
      {props.children}
      {props.typed !== undefined && (
        <div class="field">
          <label for={field}>
            Type <code>{props.typed}</code> to go on
          </label>
          <input
            id={field}
            class="input"
            autocomplete="off"
            spellcheck={false}
            value={typed}
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
        </div>
      )}
    </Dialog>
  );
}
