/** Closes a connection, after it is said what becomes of its jobs. */
import { remove } from "../api/client";
import { type Connection, nameOf } from "../connections";
import { plural } from "../format";
import { Confirm } from "./dialog";

export function Disconnect({ of, close }: { of: Connection; close: (isDone: boolean) => void }) {
  const name = nameOf(of) ?? "a connection without a name";
  const jobs = of.running.length;
  return (
    <Confirm
      title={`Disconnect ${nameOf(of) ?? of.host}`}
      action="Disconnect"
      dangerous
      run={() => remove("/api/v1/connections/{number}", { path: { number: of.number } })}
      done={`${name} at ${of.host} is disconnected`}
      close={close}
    >
      <p>
        The connection of <strong>{name}</strong> at {of.host} is closed.{" "}
        {jobs > 0 && (
          <>
            <strong>{plural(jobs, "job")}</strong> that it runs {jobs === 1 ? "is" : "are"} handed out again, as when a
            worker is lost.
          </>
        )}
      </p>
      <p class="muted">Whoever is at its other end may connect again at once: most workers do.</p>
    </Confirm>
  );
}
