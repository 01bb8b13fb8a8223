/** Dead letters by what they have in common: function, reason and the line of the error that says most. */
import { useState } from "preact/hooks";
import { get } from "../api/client";
import { EmptyState, PageHead } from "../components/basics";
import { Select } from "../components/fields";
import { FunctionFilter } from "../components/filters";
import { Icon } from "../components/icons";
import { ErrorLine, PurgeLetters, ReasonBadge, RetryLetters } from "../components/letters";
import { type Column, Table } from "../components/table";
import { type Group, type Meant, REASON_NAMES, REASONS, type Reason } from "../dead";
import { useFetched } from "../fetching";
import { count, exactTime, plural, time } from "../format";
import { fromQuery, setQuery, to } from "../router";
import { may } from "../session";

const PAGE = 50;

interface Opened {
  action: "retry" | "purge";
  meant: Meant;
}

export default function DeadScreen() {
  const name = fromQuery("function", "");
  const reason = fromQuery<Reason | "">("reason", "", REASON_NAMES);
  const [opened, setOpened] = useState<Opened | null>(null);
  const after = fromQuery("after", "");
  const query = { function: name || undefined, reason: reason || undefined, after, limit: PAGE };
  const { data, problem, again } = useFetched(JSON.stringify(query), (signal) =>
    get("/api/v1/dead/groups", { query, signal }),
  );
  const meant: Meant = { ...(name ? { function: name } : {}), ...(reason ? { reason } : {}) };
  const isChosen = Boolean(name || reason);
  const letters = data?.letter_count ?? 0;
  return (
    <>
      <PageHead
        title="Dead letters"
        beside={
          letters > 0 && (
            <span class="muted fresh">
              {count(letters)} in {plural(data?.group_count ?? 0, "group")}
            </span>
          )
        }
      >
        <FunctionFilter value={name} change={(given) => setQuery({ function: given, after: "" })} />
        <Select
          id="reason"
          label="Reason"
          value={reason}
          change={(given) => setQuery({ reason: given, after: "" })}
          options={[["", "Any reason"], ...REASON_NAMES]}
        />
        {may("operate") && (
          <>
            <button
              type="button"
              class="button"
              disabled={!letters}
              onClick={() => setOpened({ action: "retry", meant })}
            >
              <Icon name="retry" />
              Try all again
            </button>
            <button
              type="button"
              class="button danger"
              disabled={!letters}
              onClick={() => setOpened({ action: "purge", meant })}
            >
              <Icon name="trash" />
              Purge all
            </button>
          </>
        )}
      </PageHead>
      <div class="dead">
        <Table
          label="Groups of dead letters"
          columns={columnsOf(data?.groups ?? [], setOpened)}
          rows={data?.groups}
          keyOf={(group) => String(group.group)}
          problem={problem}
          next={data?.next}
          empty={<Empty isChosen={isChosen} />}
        />
      </div>
      {opened && <Action {...opened} again={again} close={() => setOpened(null)} />}
    </>
  );
}

/** The dialog of what is to be done. */
export function Action({ action, meant, again, close }: Opened & { again: () => void; close: () => void }) {
  const end = (isDone: boolean) => {
    close();
    if (isDone) again();
  };
  return action === "retry" ? <RetryLetters meant={meant} close={end} /> : <PurgeLetters meant={meant} close={end} />;
}

function Empty({ isChosen }: { isChosen: boolean }) {
  if (isChosen) {
    return (
      <EmptyState icon="check" title="None of these">
        No dead letter is of this function and reason. <a href={to(["dead"])}>All dead letters</a>
      </EmptyState>
    );
  }
  return (
    <EmptyState icon="check" title="No dead letters" command="geartrain policy set resize attempts=5 dead=7d">
      A job that did not succeed at last is kept here, with its payload and each attempt, where the policy of its
      function has <code>attempts</code> or <code>dead</code>. Then you can try it again, or throw it away.
    </EmptyState>
  );
}

function columnsOf(groups: readonly Group[], open: (opened: Opened) => void): Column<Group>[] {
  const most = Math.max(...groups.map((group) => group.count), 1);
  const columns: Column<Group>[] = [
    {
      title: "Error",
      isMain: true,
      cell: (group) => (
        <>
          <a href={to(["dead", "groups", String(group.group)])} title={group.error}>
            <ErrorLine of={group} />
          </a>
          <span class="only-phone small muted">
            {group.function} <ReasonBadge reason={group.reason} />
          </span>
        </>
      ),
    },
    {
      title: "Function",
      room: "second",
      cell: ({ function: name }) => (
        <a class="plain" href={to(["dead"], { function: name })} title={`Dead letters of ${name}`}>
          {name}
        </a>
      ),
    },
    {
      title: "Reason",
      room: "second",
      cell: ({ reason }) => (
        <span title={REASONS[reason as Reason]}>
          <ReasonBadge reason={reason} />
        </span>
      ),
    },
    {
      title: "Letters",
      isNumber: true,
      cell: (group) => (
        <span class="share">
          <strong>{count(group.count)}</strong>
          <span class="meter" aria-hidden="true">
            <i style={{ width: `${(100 * group.count) / most}%` }} />
          </span>
        </span>
      ),
    },
    {
      title: "Newest",
      isNumber: true,
      room: "second",
      cell: (group) => <span title={exactTime(group.newest)}>{time(group.newest)}</span>,
    },
    {
      title: "Oldest",
      isNumber: true,
      room: "third",
      cell: (group) => <span title={exactTime(group.oldest)}>{time(group.oldest)}</span>,
    },
  ];
  if (!may("operate")) return columns;
  const button = (group: Group, action: Opened["action"], title: string) => (
    <button
      type="button"
      class="button bare"
      title={`${title} of ${group.function}`}
      aria-label={`${title} of ${group.function}: ${group.error}`}
      onClick={() => open({ action, meant: { group: group.group, function: group.function } })}
    >
      <Icon name={action === "retry" ? "retry" : "trash"} />
    </button>
  );
  columns.push({
    title: "",
    isNumber: true,
    room: "second",
    cell: (group) => (
      <>
        {button(group, "retry", "Try these letters again")}
        {button(group, "purge", "Purge these letters")}
      </>
    ),
  });
  return columns;
}
