/** Shows bytes: as text, JSON, a picture or in hexadecimal, whatever fits first. */
import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import {
  bytesOf,
  type Content,
  hexDump,
  pictureType,
  pictureUrl,
  prettyJson,
  type Token,
  type View,
  viewsOf,
} from "../content";
import { bytes } from "../format";
import { Copy, Tabs } from "./basics";

const SHOWN = 64 * 1024; // characters, or bytes in hexadecimal, that are shown at once
const NAMES: Record<View, string> = { text: "Text", json: "JSON", picture: "Picture", hex: "Hex" };

export function Viewer({ title, name, content }: { title: string; name: string; content: Content }) {
  const views = useMemo(() => viewsOf(content), [content]);
  const data = useMemo(() => bytesOf(content), [content]);
  const [picked, pick] = useState<View | null>(null);
  const view = picked && views.includes(picked) ? picked : (views[0] ?? "hex");
  const save = () => {
    const url = URL.createObjectURL(new Blob([data.slice().buffer]));
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  return (
    <section class="card viewer">
      <div class="card-head">
        <h2>{title}</h2>
        <span class="muted small">{bytes(data.length)}</span>
        <div class="end bar">
          {data.length > 0 && (
            <>
              {views.length > 1 && (
                <Tabs
                  label={`How the ${title.toLowerCase()} is shown`}
                  options={views.map((each) => [each, NAMES[each]] as const)}
                  picked={view}
                  pick={pick}
                />
              )}
              {"text" in content && <Copy text={content.text} label={`Copy the ${title.toLowerCase()}`} />}
              <button type="button" class="button bare" onClick={save}>
                Save
              </button>
            </>
          )}
        </div>
      </div>
      <div class="card-body">
        {data.length ? <Shown view={view} content={content} data={data} /> : <p class="muted">Nothing: 0 bytes.</p>}
      </div>
    </section>
  );
}

function Shown({ view, content, data }: { view: View; content: Content; data: Uint8Array }) {
  const type = view === "picture" ? pictureType(content) : null;
  if (type) return <img class="picture" src={pictureUrl(content, type)} alt={`A picture: ${type}`} />;
  if (view === "json" && "text" in content) return <Json text={content.text} />;
  if (view === "text" && "text" in content) {
    return (
      <Block isCut={content.text.length > SHOWN} of={data.length}>
        {content.text.slice(0, SHOWN)}
      </Block>
    );
  }
  return (
    <Block isCut={data.length > SHOWN} of={data.length} isWide>
      {hexDump(data.subarray(0, SHOWN))}
    </Block>
  );
}

function Json({ text }: { text: string }) {
  const tokens = useMemo(() => (text.length > SHOWN ? null : prettyJson(text)), [text]);
  const long = useMemo(() => tokens ?? shortened(prettyJson(text)), [text, tokens]);
  return (
    <Block isCut={!tokens} of={text.length}>
      {long.map((token, at) =>
        token.kind === "plain" ? (
          token.text
        ) : (
          <span key={at} class={`json-${token.kind}`}>
            {token.text}
          </span>
        ),
      )}
    </Block>
  );
}

/** As many tokens as may be shown at once. */
function shortened(tokens: readonly Token[]): Token[] {
  let length = 0;
  const end = tokens.findIndex((token) => {
    length += token.text.length;
    return length > SHOWN;
  });
  return tokens.slice(0, end < 0 ? tokens.length : end);
}

function Block(props: { isCut: boolean; of: number; isWide?: boolean; children: ComponentChildren }) {
  return (
    <>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is to be reached by the keyboard */}
      <pre class={props.isWide ? "bytes wide" : "bytes"} tabIndex={0}>
        {props.children}
      </pre>
      {props.isCut && (
        <p class="muted small">
          Only the first {bytes(SHOWN)} are shown. Save it to have all {bytes(props.of)}.
        </p>
      )}
    </>
  );
}
