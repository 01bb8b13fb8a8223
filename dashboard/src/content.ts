/** What a workload or a result is: text, JSON, a picture or mere bytes, and how each is shown. */
import type { Schemas } from "./api/client";

export type Content = Schemas["Text"] | Schemas["Base64"];
export type View = "text" | "json" | "picture" | "hex";

export function bytesOf(content: Content): Uint8Array {
  if ("text" in content) return new TextEncoder().encode(content.text);
  const told = atob(content.base64);
  return Uint8Array.from(told, (letter) => letter.charCodeAt(0));
}

const MAGIC: readonly (readonly [string, readonly (number | null)[]])[] = [
  ["image/png", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
  ["image/jpeg", [0xff, 0xd8, 0xff]],
  ["image/gif", [0x47, 0x49, 0x46, 0x38, null, 0x61]],
  ["image/webp", [0x52, 0x49, 0x46, 0x46, null, null, null, null, 0x57, 0x45, 0x42, 0x50]],
  ["image/avif", [null, null, null, null, 0x66, 0x74, 0x79, 0x70, 0x61, 0x76, 0x69, 0x66]],
  ["image/bmp", [0x42, 0x4d, null, null, null, null, 0, 0, 0, 0]],
];

/** The type of a picture by its first bytes; null: it is none that a browser shows. */
export function pictureType(content: Content): string | null {
  if (
    "text" in content &&
    /^(\ufeff)?\s*(<\?xml[^>]*>\s*)?(<!--[^>]*-->\s*)*<svg[\s>]/.test(content.text.slice(0, 1000))
  )
    return "image/svg+xml";
  const head = bytesOf(
    "text" in content ? { text: content.text.slice(0, 16) } : { base64: content.base64.slice(0, 32) },
  );
  const found = MAGIC.find(([, magic]) => magic.every((byte, at) => byte === null || head[at] === byte));
  return found?.[0] ?? null;
}

/** A picture as the page may show it: its rules allow `data:`, and nothing in such a picture is executed. */
export function pictureUrl(content: Content, type: string): string {
  return "text" in content
    ? `data:${type};charset=utf-8,${encodeURIComponent(content.text)}`
    : `data:${type};base64,${content.base64}`;
}

/** Whether it is worth being shown as JSON: an object or an array. */
export function isJson(content: Content): boolean {
  if (!("text" in content) || !/^\s*[[{]/.test(content.text)) return false;
  try {
    JSON.parse(content.text);
    return true;
  } catch {
    return false;
  }
}

/** The ways to look at it; the first one tells most. */
export function viewsOf(content: Content): View[] {
  const views: View[] = [];
  if (pictureType(content)) views.push("picture");
  if (isJson(content)) views.push("json");
  if ("text" in content) views.push("text");
  return [...views, "hex"];
}

export interface Token {
  kind: "key" | "string" | "number" | "word" | "plain";
  text: string;
}

const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;

/** JSON with line breaks, in its parts. Numbers and strings stay as they are written, however many digits they have. */
export function prettyJson(text: string): Token[] {
  const found = text.match(TOKENS) ?? [];
  const tokens: Token[] = [];
  let depth = 0;
  let plain = "";
  const line = () => {
    plain += `\n${"  ".repeat(depth)}`;
  };
  for (const [at, part] of found.entries()) {
    const next = found[at + 1];
    if (part === "{" || part === "[") {
      plain += part;
      if (next === "}" || next === "]") continue;
      depth += 1;
      line();
    } else if (part === "}" || part === "]") {
      const before = found[at - 1];
      if (before !== "{" && before !== "[") {
        depth -= 1;
        line();
      }
      plain += part;
    } else if (part === ",") {
      plain += part;
      line();
    } else if (part === ":") plain += ": ";
    else {
      if (plain) tokens.push({ kind: "plain", text: plain });
      plain = "";
      tokens.push({ kind: kindOf(part, next), text: part });
    }
  }
  if (plain) tokens.push({ kind: "plain", text: plain });
  return tokens;
}

function kindOf(part: string, next: string | undefined): Token["kind"] {
  if (part.startsWith('"')) return next === ":" ? "key" : "string";
  return /^[tfn]/.test(part) ? "word" : "number";
}

/** Bytes as `hexdump -C` shows them: where, 16 of them, and those that are letters. */
export function hexDump(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = Array.from(bytes.subarray(at, at + 16));
    const codes = row.map((byte) => byte.toString(16).padStart(2, "0"));
    const left = codes.slice(0, 8).join(" ").padEnd(23);
    const right = codes.slice(8).join(" ").padEnd(23);
    const letters = row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "."));
    lines.push(`${at.toString(16).padStart(8, "0")}  ${left}  ${right}  ${letters.join("")}`);
  }
  return lines.join("\n");
}

const READABLE = 4096; // bytes in hexadecimal

/** It as somebody can read it: text, or the first of its bytes in hexadecimal. */
export function readable(content: Content): string {
  if ("text" in content) return content.text;
  const all = bytesOf(content);
  const dump = hexDump(all.subarray(0, READABLE));
  return all.length > READABLE ? `${dump}\nand ${all.length - READABLE} bytes more` : dump;
}

/** JSON on lines of its own; anything else as it is. */
export function pretty(text: string): string {
  if (!isJson({ text })) return text;
  return prettyJson(text)
    .map((token) => token.text)
    .join("");
}
