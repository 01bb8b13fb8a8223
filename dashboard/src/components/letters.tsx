/** What can be done about dead letters: try them again or throw them away, after it is said how many those are. */
import { useState } from "preact/hooks";
import { get, post } from "../api/client";
import { bodyOf, type Group, type Groups, headline, inWords, type Meant, rateOf, stateOf, toType } from "../dead";
import { useFetched } from "../fetching";
import { count, plural } from "../format";
import { Badge, ProblemNote } from "./basics";
import { Confirm } from "./dialog";
import { Field, Input } from "./fields";
import { attempt } from "./toast";

const NAMED = 4;

export function ReasonBadge({ reason }: { reason: string }) {
  return <Badge state={stateOf(reason)}>{reason}</Badge>;
}

/** What was said of a failure; else, in other letters, what happened. */
export function ErrorLine({ of: { error, reason } }: { of: Pick<Group, "error" | "reason"> }) {
  return <span class={error ? "mono" : "muted"}>{headline(error, reason)}</span>;
}

/** Have one letter be tried again, which needs no question. */
export function retryOne(handle: string): Promise<boolean> {
  const body = { handles: [handle], all: false };
  return attempt(() => post("/api/v1/dead/retry", { body }), `${handle} waits again`);
}

/** The groups that something is done to; for single letters there is nothing to be asked. */
function useMeant(meant: Meant): ReturnType<typeof useFetched<Groups | null>> {
  const query =
    "handles" in meant
      ? null
      : "group" in meant
        ? { group: meant.group }
        : { function: meant.function, reason: meant.reason, limit: NAMED };
  return useFetched(JSON.stringify(meant), (signal) =>
    query ? get("/api/v1/dead/groups", { query, signal }) : Promise.resolve(null),
  );
}

function numberOf(meant: Meant, groups: Groups | null | undefined): string {
  if ("handles" in meant) return plural(meant.handles.length, "dead letter");
  return plural(groups?.letter_count ?? 0, "dead letter");
}

const isNothing = (groups: Groups | null | undefined) => groups !== null && !groups?.letter_count;

/** What is meant, in groups, the largest first. */
function Named({ groups, meant }: { groups: Groups | null | undefined; meant: Meant }) {
  if (!groups || "group" in meant || groups.group_count < 2) return null;
  const rest = groups.group_count - groups.groups.length;
  return (
    <ul class="named small">
      {groups.groups.map((group) => (
        <li key={group.group}>
          <strong>{count(group.count)}</strong>
          <span>
            {group.function}: <ErrorLine of={group} />
          </span>
        </li>
      ))}
      {rest > 0 && (
        <li class="muted">
          <span />
          <span>and {plural(rest, "other group")}</span>
        </li>
      )}
    </ul>
  );
}

interface Props {
  meant: Meant;
  close: (isDone: boolean) => void;
}

export function RetryLetters({ meant, close }: Props) {
  const { data, problem } = useMeant(meant);
  const [typed, setTyped] = useState("");
  const rate = rateOf(typed);
  const isOne = "handles" in meant;
  const body = { ...bodyOf(meant), ...(rate && { rate }) };
  return (
    <Confirm
      title="Try dead letters again"
      action="Try again"
      isWaiting={data === undefined || isNothing(data) || rate === null}
      run={() => post("/api/v1/dead/retry", { body })}
      done={({ count: done }) =>
        rate
          ? `${plural(done, "job")} will wait again, ${count(rate)} each second`
          : `${plural(done, "job")} ${done === 1 ? "waits" : "wait"} again`
      }
      close={close}
    >
      <ProblemNote problem={problem} />
      <p>
        {data === undefined ? (
          "Counting the dead letters."
        ) : isNothing(data) ? (
          "There are none any more."
        ) : (
          <>
            <strong>{numberOf(meant, data)}</strong> {inWords(meant)} would wait in the queue again, with no attempt
            counted.
          </>
        )}
      </p>
      <Named groups={data} meant={meant} />
      {!isOne && (
        <Field label="How many a second" note="So that what has just been mended is not overrun. Empty: all at once.">
          {(id) => <Input id={id} value={typed} change={setTyped} placeholder="all at once" />}
        </Field>
      )}
    </Confirm>
  );
}

export function PurgeLetters({ meant, close }: Props) {
  const { data, problem } = useMeant(meant);
  const number = numberOf(meant, data);
  return (
    <Confirm
      title="Purge dead letters"
      action={data === undefined || isNothing(data) ? "Purge" : `Purge ${number}`}
      typed={isNothing(data) ? undefined : toType(meant)}
      dangerous
      isWaiting={data === undefined || isNothing(data)}
      run={() => post("/api/v1/dead/purge", { body: bodyOf(meant) })}
      done={({ count: done }) => `${plural(done, "dead letter")} ${done === 1 ? "is" : "are"} gone`}
      close={close}
    >
      <ProblemNote problem={problem} />
      <p>
        {data === undefined ? (
          "Counting the dead letters."
        ) : isNothing(data) ? (
          "There are none any more."
        ) : (
          <>
            <strong>{number}</strong> {inWords(meant)} would be gone for good, payload and all.
          </>
        )}
      </p>
      <Named groups={data} meant={meant} />
    </Confirm>
  );
}
