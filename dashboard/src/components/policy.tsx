/** Edits the policy of a function: each key with what it means, what may stand there, and what counts without it. */
import { useMemo, useState } from "preact/hooks";
import { get, type Problem, put, remove, type Schemas } from "../api/client";
import { useFetched } from "../fetching";
import { EmptyState, ProblemNote } from "./basics";
import { Dialog } from "./dialog";
import { attempt } from "./toast";

type Key = Schemas["PolicyKey"];
type Policy = Schemas["Policy"];

/** The policy in force, which may be of a pattern; null: there is none. */
export async function policyOf(name: string, signal: AbortSignal): Promise<Policy | null> {
  try {
    return await get("/api/v1/functions/{name}/policy", { path: { name }, signal });
  } catch (error) {
    if ((error as Problem).kind === "unknown-policy") return null;
    throw error;
  }
}

export function PolicyDialog(props: { name: string; policy: Policy | null; close: (isDone: boolean) => void }) {
  const { name, policy, close } = props;
  const { data, problem } = useFetched("policy-keys", (signal) => get("/api/v1/policy-keys", { signal }));
  const [values, setValues] = useState<Record<string, string>>(policy?.keys ?? {});
  const [find, setFind] = useState("");
  const isOwn = policy?.name === name;
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value.trim()));
  const save = async () => {
    const path = { name };
    const isEmpty = !Object.keys(given).length;
    if (isEmpty && !isOwn) return close(false);
    const isDone = await attempt(
      () =>
        isEmpty
          ? remove("/api/v1/functions/{name}/policy", { path })
          : put("/api/v1/functions/{name}/policy", { path, body: { keys: given } }),
      isEmpty ? `${name} has no policy of its own any more` : `The policy of ${name} holds from now on`,
    );
    if (isDone) close(true);
  };
  return (
    <Dialog
      title={`Policy of ${name}`}
      kind="large"
      close={() => close(false)}
      submit={save}
      foot={
        <>
          <button type="button" class="button" onClick={() => close(false)}>
            Cancel
          </button>
          <button type="submit" class="button primary">
            Save
          </button>
        </>
      }
    >
      <ProblemNote problem={problem} />
      {policy && !isOwn && (
        <p class="muted">
          What is filled in comes from <code>{policy.name}</code>. Saving makes a policy for <code>{name}</code> alone,
          and that counts instead.
        </p>
      )}
      {policy && isOwn && policy.source === "file" && (
        <p class="muted">What is filled in comes from the configuration file. What is saved here counts instead.</p>
      )}
      <input
        class="input"
        type="search"
        aria-label="Find a key"
        placeholder="Find a key, such as retry or timeout"
        value={find}
        onInput={(event) => setFind(event.currentTarget.value)}
      />
      <Keys
        keys={data?.keys ?? []}
        find={find}
        values={values}
        change={(key, value) => setValues((before) => ({ ...before, [key]: value }))}
      />
    </Dialog>
  );
}

const sentence = (words: string) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;

function Keys(props: {
  keys: readonly Key[];
  find: string;
  values: Record<string, string>;
  change: (key: string, value: string) => void;
}) {
  const { keys, find, values } = props;
  const [first] = useState(values);
  const shown = useMemo(() => {
    const words = find.toLowerCase();
    const found = keys.filter(({ key, meaning, page }) => `${key} ${meaning} ${page}`.toLowerCase().includes(words));
    // Those that are set come first, and stay there while they are changed.
    return [...found.filter(({ key }) => first[key]), ...found.filter(({ key }) => !first[key])];
  }, [keys, find, first]);
  if (keys.length && !shown.length) return <EmptyState icon="search" title="No such key" />;
  return (
    <div>
      {shown.map(({ key, meaning, form, example, default: fallback }) => (
        <div class="policy-key" key={key}>
          <div>
            <label class="name" for={`key-${key}`}>
              <code>{key}</code>
            </label>
            <p class="muted small" id={`about-${key}`}>
              {sentence(meaning)} Write {form}.{fallback ? ` Without it: ${fallback}.` : ""}
            </p>
          </div>
          <input
            id={`key-${key}`}
            class="input"
            aria-describedby={`about-${key}`}
            autocomplete="off"
            spellcheck={false}
            placeholder={`such as ${example}`}
            value={values[key] ?? ""}
            onInput={(event) => props.change(key, event.currentTarget.value)}
          />
        </div>
      ))}
    </div>
  );
}
