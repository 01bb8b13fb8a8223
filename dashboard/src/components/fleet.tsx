/** The fleet: its members, how their leases stand, and who gives its jobs away. */
import { useState } from "preact/hooks";
import { get, post, type Schemas } from "../api/client";
import { useFetched } from "../fetching";
import { count, exactTime, NOTHING, plural } from "../format";
import { may } from "../session";
import { Badge, ProblemNote, type State } from "./basics";
import { Confirm } from "./dialog";

type Fleet = Schemas["Fleet"];
type Member = Schemas["FleetMember"];

const STATES: Record<string, State> = {
  live: "completed",
  lapsed: "failed",
  forsaking: "failed",
  dead: "dead",
  left: "paused",
};

export function FleetCard() {
  const ask = (signal: AbortSignal) => get("/api/v1/fleet", { signal });
  const { data, problem, again } = useFetched("fleet", ask);
  const [draining, setDraining] = useState<Member | null>(null);
  if (!data) return <ProblemNote problem={problem} />;
  const close = () => {
    setDraining(null);
    again();
  };
  return (
    <section class="card fresh" aria-label="Fleet">
      <div class="card-head">
        <h2>Fleet {data.name}</h2>
        <span class="muted small">
          This job server has adopted {plural(data.adopted_jobs, "job")}, sent {count(data.moved_jobs)} to others, and
          was taken for dead {data.fenced === 1 ? "once" : `${count(data.fenced)} times`}.
        </span>
      </div>
      <div class="table-wrap">
        <table aria-label="Members of the fleet">
          <thead>
            <tr>
              <th scope="col">Member</th>
              <th scope="col">State</th>
              <th scope="col">Lease</th>
              <th scope="col" class="second">
                Since
              </th>
              <th scope="col" class="second">
                Version
              </th>
              {may("operate") && <th scope="col">Jobs</th>}
            </tr>
          </thead>
          <tbody>
            {data.members.map((member) => (
              <tr key={member.id}>
                <td>
                  <code>{member.address}</code> <span class="muted small">{rolesOf(member, data)}</span>
                </td>
                <td>
                  <Badge state={STATES[member.state] ?? "queued"}>{member.state}</Badge>
                </td>
                <td>{member.lease === null ? NOTHING : `${member.lease.toFixed(1)} s`}</td>
                <td class="second">{exactTime(member.ended ?? member.joined)}</td>
                <td class="second">{member.version}</td>
                {may("operate") && (
                  <td>
                    {member.ended === null && (
                      <button type="button" class="button small" onClick={() => setDraining(member)}>
                        {member.draining ? "Let it keep them" : "Give away"}
                      </button>
                    )}
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {draining && <Drain member={draining} close={close} />}
    </section>
  );
}

function rolesOf(member: Member, { me, leader }: Fleet): string {
  const roles = [`${member.id}`];
  if (member.id === me) roles.push("this one");
  if (member.id === leader) roles.push("leads");
  if (member.draining) roles.push("gives its jobs away");
  return roles.join(", ");
}

function Drain({ member, close }: { member: Member; close: () => void }) {
  const on = !member.draining;
  return (
    <Confirm
      title={on ? `Give away the jobs of ${member.address}` : `Let ${member.address} keep jobs`}
      action={on ? "Give away" : "Keep"}
      run={() => post("/api/v1/fleet/members/{member}/drain", { path: { member: member.id }, body: { on } })}
      done={on ? `${member.address} gives its jobs away` : `${member.address} keeps jobs again`}
      close={close}
    >
      <p>
        {on
          ? "Jobs that wait there go to the other members. What runs there ends there, and it goes on to serve."
          : "Jobs that are submitted there wait there again."}
      </p>
    </Confirm>
  );
}
