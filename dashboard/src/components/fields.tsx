/** Fields of forms, each with its label and a note below. */
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

export function Field(props: {
  label: string;
  note?: string | undefined;
  children: (id: string) => ComponentChildren;
}) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.children(id)}
      {props.note && <span class="muted small">{props.note}</span>}
    </div>
  );
}

export function Input(props: {
  id: string;
  value: string;
  change: (value: string) => void;
  placeholder: string;
  required?: boolean;
  /** The id of a list of suggestions. */
  list?: string;
  isCode?: boolean;
}) {
  return (
    <input
      id={props.id}
      class={props.isCode ? "input mono" : "input"}
      autocomplete="off"
      spellcheck={false}
      required={props.required}
      list={props.list}
      placeholder={props.placeholder}
      value={props.value}
      onInput={(event) => props.change(event.currentTarget.value)}
    />
  );
}

export function Select(props: {
  id: string;
  /** Where no label stands beside it. */
  label?: string;
  value: string;
  change: (value: string) => void;
  options: readonly (string | readonly [string, string])[];
  isFixed?: boolean;
}) {
  return (
    <select
      id={props.id}
      aria-label={props.label}
      class="input"
      value={props.value}
      disabled={props.isFixed}
      onChange={(event) => props.change(event.currentTarget.value)}
    >
      {props.options.map((option) => {
        const [value, text] = typeof option === "string" ? [option, option] : option;
        return (
          <option key={value} value={value}>
            {text}
          </option>
        );
      })}
    </select>
  );
}
