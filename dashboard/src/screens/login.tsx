/** Where tokens are wanted, one is asked for, and the browser gets a session for it. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Problem } from "../api/client";
import { ProblemNote } from "../components/basics";
import { BASE } from "../router";
import { enter } from "../session";

export function Login() {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState<Problem | null>(null);
  const [isBusy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Log in – geartrain";
    field.current?.focus();
  }, []);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await enter(token.trim());
    } catch (error) {
      setProblem(error instanceof Problem ? error : new Problem(0, "fault", String(error)));
      field.current?.select();
    }
    setBusy(false);
  };
  return (
    <main class="login">
      <form class="card" onSubmit={submit}>
        <h1 class="brand">
          <img src={`${BASE}/icon.svg`} alt="" width="24" height="24" /> geartrain
        </h1>
        <p class="muted">This job server wants to know who asks. Your operator gives you a token.</p>
        <div class="field">
          <label for="token">Token</label>
          <input
            ref={field}
            id="token"
            class="input"
            type="password"
            autocomplete="current-password"
            required
            value={token}
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </div>
        <ProblemNote problem={problem} />
        <button type="submit" class="button primary" disabled={isBusy}>
          Log in
        </button>
        <p class="muted small">
          <code>geartrain token NAME --role read</code> makes one.
        </p>
      </form>
    </main>
  );
}
