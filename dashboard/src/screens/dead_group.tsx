/** One group of dead letters, page by page. */
import { useState } from "preact/hooks";
import { get, type Schemas } from "../api/client";
import { EmptyState, PageHead } from "../components/basics";
import { Icon } from "../components/icons";
import { ReasonBadge, retryOne } from "../components/letters";
import { type Column, Table } from "../components/table";
import { type Group, headline, REASONS, type Reason } from "../dead";
import { useFetched } from "../fetching";
import { bytes, count, exactTime, NOTHING, plural, time } from "../format";
import { fromQuery, go, to } from "../router";
import { may } from "../session";
import { Action } from "./dead";

type Letter = Schemas["Letter"];
const PAGE = 50;

export default function DeadGroupScreen({ group: number = "" }: { group?: string }) {
  const after = fromQuery("after", "");
  const query = { group: Number(number), after: Number(after), limit: PAGE };
  const [opened, setOpened] = useState<"retry" | "purge" | null>(null);
  const { data, problem, again } = useFetched(JSON.stringify(query), async (signal) => {
    const { groups } = await get("/api/v1/dead/groups", { query: { group: query.group }, signal });
    const [group] = groups; // of one that has gone there is nothing more to be asked
    return group ? { group, ...(await get("/api/v1/dead", { query, signal })) } : null;
  });
  const group = data?.group;
  const hasGone = data === null;
  return (
    <>
      <nav class="crumbs small" aria-label="Where this is">
        <a href={to(["dead"])}>Dead letters</a>
        {group && <a href={to(["dead"], { function: group.function })}>{group.function}</a>}
      </nav>
      <PageHead
        title={hasGone ? "Dead letters" : (group && headline(group.error, group.reason)) || "Dead letters"}
        beside={group && <ReasonBadge reason={group.reason} />}
      >
        {group && may("operate") && (
          <>
            <button type="button" class="button" onClick={() => setOpened("retry")}>
              <Icon name="retry" />
              Try all again
            </button>
            <button type="button" class="button danger" onClick={() => setOpened("purge")}>
              <Icon name="trash" />
              Purge
            </button>
          </>
        )}
      </PageHead>
      {group && <Told group={group} />}
      {hasGone ? (
        <div class="card">
          <EmptyState icon="check" title="This group has no letters any more">
            They were tried again, purged, or kept for as long as the policy says.{" "}
            <a href={to(["dead"])}>All dead letters</a>
          </EmptyState>
        </div>
      ) : (
        <Table
          label="Dead letters"
          columns={columnsOf(again)}
          rows={data?.letters}
          keyOf={(letter) => letter.handle}
          problem={problem}
          next={data?.next}
          empty={<EmptyState icon="check" title="No letters" />}
        />
      )}
      {opened && group && (
        <Action
          action={opened}
          meant={{ group: group.group, function: group.function }}
          again={() => go(to(["dead"], { function: group.function }))}
          close={() => setOpened(null)}
        />
      )}
    </>
  );
}

/** The group in a sentence. */
function Told({ group }: { group: Group }) {
  const { function: name, oldest, newest, reason } = group;
  const meaning = REASONS[reason as Reason];
  const isOne = group.count === 1;
  const isTogether = time(oldest) === time(newest);
  return (
    <p class="told fresh">
      <strong>{plural(group.count, "job")}</strong> of <a href={to(["functions", name])}>{name}</a>{" "}
      {isOne ? "was given up: " : "were given up: "}
      {meaning ? `${meaning}.` : `${reason}.`}{" "}
      <span class="muted">
        {isOne ? "It died at" : isTogether ? "All died at" : "The first died at"}{" "}
        <span title={exactTime(oldest)}>{time(oldest)}</span>
        {!isOne && !isTogether && (
          <>
            , the last at <span title={exactTime(newest)}>{time(newest)}</span>
          </>
        )}
        .
      </span>
    </p>
  );
}

function columnsOf(again: () => void): Column<Letter>[] {
  const columns: Column<Letter>[] = [
    {
      title: "Job",
      isMain: true,
      cell: (letter) => <a href={to(["dead", letter.handle])}>{letter.handle}</a>,
    },
    {
      title: "Died",
      isNumber: true,
      cell: (letter) => <span title={exactTime(letter.died)}>{time(letter.died)}</span>,
    },
    { title: "Attempts", isNumber: true, cell: (letter) => count(letter.attempts) },
    {
      title: "Unique",
      room: "second",
      cell: ({ unique }) => (unique ? <span class="cut">{unique}</span> : <span class="zero">{NOTHING}</span>),
    },
    { title: "Payload", isNumber: true, room: "second", cell: (letter) => bytes(letter.size) },
  ];
  if (!may("operate")) return columns;
  columns.push({
    title: "",
    isNumber: true,
    cell: ({ handle }) => (
      <button
        type="button"
        class="button bare"
        title="Try it again"
        aria-label={`Try ${handle} again`}
        onClick={() => void retryOne(handle).then(again)}
      >
        <Icon name="retry" />
      </button>
    ),
  });
  return columns;
}
