/** What narrows a list: a function by its whole name, with those that begin so to choose from. */
import { useEffect, useId, useState } from "preact/hooks";
import { get } from "../api/client";
import { useFetched } from "../fetching";
import { plural } from "../format";

const OFFERED = 20;
const nothing = () => Promise.resolve(undefined);

export function FunctionFilter({ value, change }: { value: string; change: (name: string) => void }) {
  const [typed, setTyped] = useState(value);
  const [isUsed, setUsed] = useState(false);
  const list = useId();
  useEffect(() => setTyped(value), [value]);
  const query = { prefix: typed, limit: OFFERED };
  const { data } = useFetched(
    isUsed ? typed : "",
    isUsed ? (signal) => get("/api/v1/functions", { query, signal }) : nothing,
    60_000,
  );
  const names = data?.functions ?? [];
  return (
    <>
      <input
        class="input filter"
        type="search"
        aria-label="Function"
        placeholder="Function"
        autocomplete="off"
        spellcheck={false}
        list={list}
        value={typed}
        onFocus={() => setUsed(true)}
        onInput={(event) => {
          const name = event.currentTarget.value;
          setTyped(name);
          if (!name || names.some((row) => row.name === name)) change(name);
        }}
        onChange={() => change(typed.trim())}
      />
      <datalist id={list}>
        {names.map(({ name, workers }) => (
          <option key={name} value={name}>
            {plural(workers, "worker")}
          </option>
        ))}
      </datalist>
    </>
  );
}
