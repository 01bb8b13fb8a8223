/** The same submission as curl, Python and PHP write it, with what is quoted quoted as each of them has it. */

export type Payload = { kind: "text"; text: string } | { kind: "file"; name: string };

export interface Call {
  function: string;
  payload: Payload;
  unique: string;
  priority: "high" | "normal" | "low";
  isBackground: boolean;
  /** Seconds until it may run: then it is a background job of normal priority. */
  delay: number | null;
}

/** Where the job server is reached, and whether it wants a token over HTTP. */
export interface Where {
  http: string;
  gearman: string;
  hasTokens: boolean;
}

/** A word of a shell. */
export function shellWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A string of PHP between single quotes, in which all but a quote and a backslash stands for itself. */
export function phpString(text: string): string {
  return `'${text.replace(/['\\]/g, "\\$&")}'`;
}

const ESCAPES: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

/** A string of Python, between the quotes that need fewer escapes. */
export function pythonString(text: string): string {
  const quote = text.includes('"') && !text.includes("'") ? "'" : '"';
  const inner = text.replace(/[\\"'\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (sign) => {
    if (sign === '"' || sign === "'") return sign === quote ? `\\${sign}` : sign;
    const code = sign.codePointAt(0) ?? 0;
    if (code > 0xffff) return `\\U${code.toString(16).padStart(8, "0")}`;
    return ESCAPES[sign] ?? (code < 256 ? `\\x${hex(code, 2)}` : `\\u${hex(code, 4)}`);
  });
  return quote + inner + quote;
}

const hex = (code: number, width: number) => code.toString(16).padStart(width, "0");

/** Bytes of Python: a literal of bytes has room for ASCII alone. */
export function pythonBytes(text: string): string {
  const isPlain = [...text].every((sign) => sign.charCodeAt(0) < 128);
  return isPlain ? `b${pythonString(text)}` : `${pythonString(text)}.encode()`;
}

/** What stands in the query of a submission whose body is the payload. */
function urlOf(call: Call, where: Where): string {
  const query = new URLSearchParams({ function: call.function });
  if (call.unique) query.set("unique", call.unique);
  if (call.delay !== null) query.set("delay", String(call.delay));
  else {
    if (call.priority !== "normal") query.set("priority", call.priority);
    if (call.isBackground) query.set("background", "true");
  }
  return `${where.http}/api/v1/jobs?${query}`;
}

export function curl(call: Call, where: Where): string {
  const { payload } = call;
  const body =
    payload.kind === "text"
      ? `--data-raw ${shellWord(payload.text)}`
      : `--data-binary ${shellWord(`@${payload.name}`)}`;
  const parts = [`curl ${body}`, "-H 'Content-Type: application/octet-stream'"];
  if (where.hasTokens) parts.push('-H "Authorization: Bearer $GEARTRAIN_TOKEN"');
  parts.push(shellWord(urlOf(call, where)));
  return parts.join(" \\\n  ");
}

export function python(call: Call, where: Where): string {
  const { payload, delay } = call;
  const isLater = call.isBackground || delay !== null;
  const words = [
    pythonString(call.function),
    payload.kind === "text" ? pythonBytes(payload.text) : `Path(${pythonString(payload.name)}).read_bytes()`,
  ];
  if (call.unique) words.push(`unique=${pythonString(call.unique)}`);
  if (delay !== null) words.push(`when=timedelta(seconds=${delay})`);
  else if (call.priority !== "normal") words.push(`priority="${call.priority}"`);
  const standard = [
    ...(delay === null ? [] : ["from datetime import timedelta"]),
    ...(payload.kind === "file" ? ["from pathlib import Path"] : []),
  ];
  return [
    ...standard,
    ...(standard.length ? [""] : []),
    "from geartrain import Client",
    "",
    `with Client(${pythonString(where.gearman)}) as client:`,
    isLater
      ? `    job = client.submit_background(${words.join(", ")})`
      : `    result = client.run(${words.join(", ")})`,
    isLater ? "print(job)" : 'print(result.decode(errors="replace"))',
  ].join("\n");
}

const PHP_METHODS = {
  high: ["doHigh", "doHighBackground"],
  normal: ["doNormal", "doBackground"],
  low: ["doLow", "doLowBackground"],
} as const;

export function php(call: Call, where: Where): string {
  const { payload } = call;
  const workload = payload.kind === "text" ? phpString(payload.text) : `file_get_contents(${phpString(payload.name)})`;
  if (call.delay !== null) return phpOverHttp("submits no jobs for later", call, where, workload);
  if (workload === "''") return phpOverHttp("takes no empty payload", call, where, workload);
  const [host, port] = hostAndPort(where.gearman);
  const words = [phpString(call.function), workload];
  if (call.unique) words.push(phpString(call.unique));
  const method = PHP_METHODS[call.priority][call.isBackground ? 1 : 0];
  return [
    "<?php",
    "$client = new GearmanClient();",
    `$client->addServer(${phpString(host)}, ${port});`,
    `$answer = $client->${method}(${words.join(", ")});`,
    "if ($client->returnCode() !== GEARMAN_SUCCESS) {",
    "    exit('The job has failed: ' . $client->error() . \"\\n\");",
    "}",
    'echo $answer, "\\n";',
  ].join("\n");
}

function phpOverHttp(why: string, call: Call, where: Where, workload: string): string {
  const headers = ["'Content-Type: application/octet-stream'"];
  if (where.hasTokens) headers.push("'Authorization: Bearer ' . getenv('GEARTRAIN_TOKEN')");
  return [
    "<?php",
    `// GearmanClient ${why}: this goes over HTTP.`,
    "$context = stream_context_create(['http' => [",
    "    'method' => 'POST',",
    `    'header' => [${headers.join(", ")}],`,
    `    'content' => ${workload},`,
    "]]);",
    `echo file_get_contents(${phpString(urlOf(call, where))}, false, $context), "\\n";`,
  ].join("\n");
}

function hostAndPort(address: string): [string, number] {
  const at = address.lastIndexOf(":");
  return [address.slice(0, at).replace(/^\[(.*)\]$/, "$1"), Number(address.slice(at + 1))];
}

/** Of the addresses of a job server one that others can use: where it listens everywhere, the host of this page. */
export function reachable(addresses: readonly string[], host: string): string {
  const tcp = addresses.find((address) => /:\d+$/.test(address) && !address.startsWith("unix:"));
  if (tcp === undefined) return `${host}:4730`;
  return tcp.replace(/^(0\.0\.0\.0|\[::\]|\*|):/, () => `${host}:`);
}
