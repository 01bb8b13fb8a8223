/** Takes away all jobs of a function that wait: first it says how many those are, and wants the name typed. */
import { post } from "../api/client";
import { useFetched } from "../fetching";
import { plural } from "../format";
import { ProblemNote } from "./basics";
import { Confirm } from "./dialog";

const WAITING = ["queued", "blocked", "delayed"] as const;

async function cancel(name: string, isPreview: boolean): Promise<number> {
  let count = 0;
  for (const state of WAITING) {
    for (let after: number | null = 0; after !== null; ) {
      const body = { function: name, state, dry_run: isPreview, after };
      const done: { count: number; next: number | null } = await post("/api/v1/jobs/cancel", { body });
      count += done.count;
      after = done.next;
    }
  }
  return count;
}

export function Purge({ name, close }: { name: string; close: (isDone: boolean) => void }) {
  const { data, problem } = useFetched(name, () => cancel(name, true));
  return (
    <Confirm
      title={`Purge ${name}`}
      action={data ? `Cancel ${plural(data, "job")}` : "Cancel jobs"}
      typed={data === 0 ? undefined : name}
      dangerous
      isWaiting={!data}
      done={`The waiting jobs of ${name} are gone`}
      run={() => cancel(name, false)}
      close={close}
    >
      <ProblemNote problem={problem} />
      <p>
        {data === undefined ? (
          "Counting the jobs that wait or are delayed."
        ) : data === 0 ? (
          "No job waits or is delayed."
        ) : (
          <>
            <strong>{plural(data, "job")}</strong> would be taken away for good. What runs goes on, and dead letters
            stay.
          </>
        )}
      </p>
    </Confirm>
  );
}
