/** Asks the JSON API, with the types that its OpenAPI document gives, and tells of problems (RFC 9457) as errors. */
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

type Method = "get" | "post" | "put" | "patch" | "delete";
type PathsWith<M extends Method> = { [P in keyof paths]: paths[P] extends Record<M, object> ? P : never }[keyof paths];
type Operation<M extends Method, P extends PathsWith<M>> = paths[P] extends Record<M, infer O> ? O : never;
type Part<O, K extends string> = O extends { parameters: Record<K, infer V> } ? V : never;
type Body<O> = O extends { requestBody?: infer R } ? JsonOf<NonNullable<R>> : never;
type JsonOf<R> = [R] extends [never] ? never : R extends { content: { "application/json": infer B } } ? B : never;
type Query<O> = O extends { parameters: { query?: infer Q } } ? Q : never;
export type Answer<O> = O extends { responses: { 200: { content: { "application/json": infer A } } } } ? A : unknown;
type Asked<O> = {
  signal?: AbortSignal;
  query?: Query<O>;
} & ([Part<O, "path">] extends [never] ? { path?: never } : { path: Part<O, "path"> }) &
  ([Body<O>] extends [never] ? { body?: never } : { body: Body<O> });
type Arguments<O> = Record<string, never> extends Asked<O> ? [asked?: Asked<O>] : [asked: Asked<O>];

/** What the API answers instead of what was asked for: `message` is a sentence for people. */
export class Problem extends Error {
  readonly status: number;
  readonly kind: string;

  constructor(status: number, kind: string, detail: string) {
    super(detail);
    this.status = status;
    this.kind = kind;
  }
}

/** What a browser's session needs with each request that changes something; `session.ts` sets it. */
export const csrf = { token: "" };

/** Called when the API wants to know who asks. */
export const onUnknown = { call: () => {} };

export const get = <P extends PathsWith<"get">>(path: P, ...rest: Arguments<Operation<"get", P>>) =>
  ask("get", path, rest[0]);
export const post = <P extends PathsWith<"post">>(path: P, ...rest: Arguments<Operation<"post", P>>) =>
  ask("post", path, rest[0]);
export const put = <P extends PathsWith<"put">>(path: P, ...rest: Arguments<Operation<"put", P>>) =>
  ask("put", path, rest[0]);
export const patch = <P extends PathsWith<"patch">>(path: P, ...rest: Arguments<Operation<"patch", P>>) =>
  ask("patch", path, rest[0]);
export const remove = <P extends PathsWith<"delete">>(path: P, ...rest: Arguments<Operation<"delete", P>>) =>
  ask("delete", path, rest[0]);

interface Plain {
  signal?: AbortSignal;
  path?: unknown;
  query?: unknown;
  body?: unknown;
}

async function ask<M extends Method, P extends PathsWith<M>>(
  method: M,
  path: P,
  asked: Plain = {},
): Promise<Answer<Operation<M, P>>> {
  const headers: Record<string, string> = { Accept: "application/json" };
  const request: RequestInit = { method: method.toUpperCase(), headers, credentials: "same-origin" };
  if (asked.signal) request.signal = asked.signal;
  if (asked.body !== undefined) {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(asked.body);
  }
  if (method !== "get" && csrf.token) headers["X-CSRF-Token"] = csrf.token;
  let response: Response;
  try {
    response = await fetch(urlOf(path, asked.path, asked.query), request);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(
      0,
      "unreachable",
      "The job server does not answer. It may be restarting, or the network is down.",
    );
  }
  if (response.ok) return response.json();
  throw await problemOf(response);
}

/**
 * The URL of a path of the API: `{name}` in it is filled in, values of the query that are empty are left out, and of a
 * list each stands on its own.
 */
export function urlOf(path: string, parts: unknown = {}, query: unknown = {}): string {
  const values = parts as Record<string, string | number>;
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(values[name])));
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query as object)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") search.append(name, String(each));
    }
  }
  const text = search.toString();
  return text ? `${filled}?${text}` : filled;
}

async function problemOf(response: Response): Promise<Problem> {
  let kind = "fault";
  let detail = `The job server answered ${response.status}.`;
  try {
    const told = (await response.json()) as { type?: string; detail?: string };
    kind = told.type?.split("#")[1] ?? kind;
    detail = told.detail ?? detail;
  } catch {
    // Something in between has answered, which writes no problems.
  }
  if (response.status === 401 && kind === "token-needed") onUnknown.call();
  return new Problem(response.status, kind, detail);
}
