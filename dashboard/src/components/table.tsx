/** Tables: the server sorts and pages, the URL holds both, and the arrow keys go from row to row. */
import type { ComponentChildren } from "preact";
import type { Problem } from "../api/client";
import { fromQuery, setQuery } from "../router";
import { ProblemNote } from "./basics";

export interface Column<Row> {
  title: string;
  /** What stands in its head instead of the title. */
  head?: ComponentChildren;
  cell: (row: Row) => ComponentChildren;
  /** What the server is asked to sort by. */
  sort?: string;
  /** Which way round it is sorted then, for those who can't see it. */
  order?: "ascending" | "descending";
  isNumber?: boolean;
  /** The column that a row is known by; it holds a link. */
  isMain?: boolean;
  /** Whether what is long in it is cut off. */
  isCut?: boolean;
  /** From which width on it is shown: `second` not on phones, `third` only where there is much room. */
  room?: "second" | "third";
}

export function Table<Row>(props: {
  label: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[] | undefined;
  keyOf: (row: Row) => string;
  problem: Problem | null;
  /** `after` of the next page; null: there is none. */
  next?: string | number | null | undefined;
  defaultSort?: string;
  /** What stands there without any rows. */
  empty: ComponentChildren;
}) {
  const { columns, rows, next } = props;
  const sort = fromQuery("sort", props.defaultSort ?? "");
  const after = fromQuery("after", "");
  if (rows && !rows.length && !after) {
    return (
      <>
        <ProblemNote problem={props.problem} />
        <div class="card">{props.empty}</div>
      </>
    );
  }
  const sortBy = (name: string) => setQuery({ sort: name === props.defaultSort ? "" : name, after: "" });
  return (
    <>
      <ProblemNote problem={props.problem} />
      <div class="card fresh">
        <div class="table-wrap">
          <table aria-label={props.label} aria-busy={!rows}>
            <thead>
              <tr>
                {columns.map((column) => (
                  <th
                    key={column.title}
                    scope="col"
                    class={classOf(column)}
                    aria-sort={
                      !column.sort ? undefined : column.sort === sort ? (column.order ?? "descending") : "none"
                    }
                  >
                    {column.sort ? (
                      <button type="button" onClick={() => sortBy(column.sort ?? "")}>
                        {column.title}
                        <span class="arrow" aria-hidden="true">
                          {column.order === "ascending" ? "↑" : "↓"}
                        </span>
                      </button>
                    ) : (
                      (column.head ?? column.title)
                    )}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody onKeyDown={stepFromRowToRow}>
              {rows?.map((row) => (
                <tr key={props.keyOf(row)}>
                  {columns.map((column) => (
                    <td key={column.title} class={classOf(column)}>
                      {column.cell(row)}
                    </td>
                  ))}
                </tr>
              ))}
              {!rows && !props.problem && (
                <tr class="loading-row">
                  <td colSpan={columns.length}>Loading</td>
                </tr>
              )}
            </tbody>
          </table>
        </div>
        {(after || next) && (
          <div class="table-foot">
            <button type="button" class="button" disabled={!after} onClick={() => setQuery({ after: "" }, "push")}>
              First page
            </button>
            <button
              type="button"
              class="button"
              disabled={!next}
              onClick={() => {
                setQuery({ after: String(next) }, "push");
                scrollTo(0, 0);
              }}
            >
              Next page
            </button>
          </div>
        )}
      </div>
    </>
  );
}

function classOf<Row>({ isNumber, isMain, isCut, room }: Column<Row>): string {
  return [isNumber && "number-cell", isMain && "main", isCut && "cut", room].filter(Boolean).join(" ");
}

function stepFromRowToRow(event: KeyboardEvent): void {
  const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
  const row = (event.target as Element).closest("tr");
  if (!step || !row || (event.target as Element).closest("input, select")) return;
  const other = step > 0 ? row.nextElementSibling : row.previousElementSibling;
  const link = other?.querySelector<HTMLElement>("td.main a");
  if (link) {
    event.preventDefault();
    link.focus();
  }
}
