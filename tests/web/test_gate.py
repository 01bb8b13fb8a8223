"""Who gets in over HTTP: tokens and roles, sessions, pages of other sites, names that lead here by somebody's doing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_client import Answer, Http

pytest.importorskip("httptools")

from geartrain.web.access import FAILURES, Access, digest_of
from servers import RunningServer, running_geartrain, wait_until

READER, MAILER, ROOT = "r" * 40, "m" * 40, "o" * 40
CONFIG = f"""
[tokens.grafana]
digest = "{digest_of(READER)}"
roles = ["read"]
[tokens.shop]
digest = "{digest_of(MAILER)}"
roles = ["submit:mail*", "submit:resize"]
[tokens.ops]
digest = "{digest_of(ROOT)}"
roles = ["read", "submit", "operate"]
"""


@pytest.fixture(scope="module")
def open_server() -> Iterator[RunningServer]:
    with running_geartrain("--http=127.0.0.1:0", "--http-host=jobs.example.org") as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    file = tmp_path_factory.mktemp("tokens") / "geartrain.toml"
    file.write_text(CONFIG)
    with running_geartrain("--http=127.0.0.1:0", f"--config={file}") as server:
        yield server


def submit(server: RunningServer, function: str = "f", **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Http(server.http_port).ask("POST", f"/{function}", b"x", {"X-Gearman-Background": "true", **names})


# ── pages of other sites ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "jobs.example.org", "JOBS.example.org:80"])
def test_names_that_are_ours(open_server: RunningServer, host: str) -> None:
    assert submit(open_server, Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.example", ""]
)
def test_a_name_that_only_leads_here_is_refused(open_server: RunningServer, host: str) -> None:
    answer = submit(open_server, Host=host)
    assert (answer.status, answer.json["type"]) == (421, "/problems#unknown-host")
    assert "--http-host" in answer.json["detail"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", "http://localhost:1"])
def test_a_page_of_another_site_is_refused(open_server: RunningServer, origin: str) -> None:
    answer = submit(open_server, Host="localhost", Origin=origin)
    assert (answer.status, answer.json["type"]) == (403, "/problems#other-origin")


def test_our_own_page_may_ask_behind_a_proxy_that_ends_tls(open_server: RunningServer) -> None:
    for host in ("jobs.example.org", "jobs.example.org:8443"):
        assert submit(open_server, Host=host, Origin=f"https://{host}").status == 200
    assert submit(open_server, Host="jobs.example.org", Origin="https://jobs.example.org:1").status == 403


def test_our_own_page_may_ask(open_server: RunningServer) -> None:
    assert submit(open_server, Host="localhost", Origin="http://localhost").status == 200


@pytest.mark.parametrize(
    ("site", "mode", "method", "is_let_in"),
    [
        ("same-origin", "cors", "POST", True),
        ("none", "navigate", "GET", True),
        ("cross-site", "navigate", "GET", True),  # a link to the dashboard
        ("cross-site", "navigate", "POST", False),  # a form
        ("cross-site", "no-cors", "GET", False),  # a picture
        ("same-site", "cors", "POST", False),  # a page at another port of this machine
    ],
)
def test_what_the_browser_says_of_the_sender(
    open_server: RunningServer, site: str, mode: str, method: str, is_let_in: bool
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "X-Gearman-Background": "true"}
    answer = Http(open_server.http_port).ask(method, "/f" if method == "POST" else "/api/v1/openapi.json", b"", headers)
    assert (answer.status == 200) == is_let_in, answer


@pytest.fixture(scope="module")
def as_gearmand() -> Iterator[RunningServer]:
    with running_geartrain("--http=127.0.0.1:0", "--http-gearmand") as server:
        yield server


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("none", 200)])
def test_a_link_on_another_site_submits_nothing_where_get_submits(site: str, status: int) -> None:
    with running_geartrain("--http=127.0.0.1:0", "--http-gearmand") as server:
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "X-Gearman-Background": "true"}
        assert Http(server.http_port).ask("GET", "/f", b"", headers).status == status
        assert server.jobs_of("f") == (int(status == 200), 0)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/f", {}, 403),  # a picture, say, in a browser that does not tell
        ("HEAD", "/f", {}, 403),
        ("GET", "/gearman/f", {}, 403),
        ("POST", "/f", {}, 200),
        ("GET", "/f", {"Sec-Fetch-Site": "none"}, 200),
        ("GET", "/f", {"Authorization": "Bearer x"}, 200),
        ("GET", "/f", {"User-Agent": "curl/8.5.0"}, 200),
        ("GET", "/api/v1/server", {}, 200),
    ],
)
def test_a_browser_that_does_not_say_whose_page_it_shows_submits_nothing_by_get(
    as_gearmand: RunningServer, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    sent = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)", "X-Gearman-Background": "true", **headers}
    assert Http(as_gearmand.http_port).ask(method, path, b"", sent).status == status


def test_nothing_may_be_shown_within_another_page(open_server: RunningServer) -> None:
    answer = Http(open_server.http_port).ask("GET", "/api/v1/openapi.json")
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_roles(server: RunningServer) -> None:
    assert submit(server, **bearer(ROOT)).status == 200
    for function, status in (("mail", 200), ("mail-urgent", 200), ("resize", 200), ("resize2", 403), ("f", 403)):
        assert submit(server, function, **bearer(MAILER)).status == status
    answer = submit(server, "mail", **bearer(READER))
    assert (answer.status, answer.json["detail"]) == (403, "grafana has no right to submit jobs of mail")


def token(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geartrain", "token", *arguments], capture_output=True, text=True, timeout=30
    )


def test_a_token_is_made_and_used(tmp_path: Path) -> None:
    first, _, table = token("shop", "--role=read", "--role=submit:mail*").stdout.partition("\n")
    file = tmp_path / "geartrain.toml"
    file.write_text(table)
    secret = first.removeprefix("token: ")
    assert len(secret) > 40
    with running_geartrain("--http=127.0.0.1:0", f"--config={file}") as server:
        assert submit(server, "mail", **bearer(secret)).status == 200
        assert submit(server, "f", **bearer(secret)).status == 403
        assert submit(server, "mail", **bearer(secret + "x")).status == 401


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["shop", "--role=admin"], "'admin' is no role: write read, submit"),
        (["a b", "--role=read"], "'a b': write letters, digits, - and _"),
        (["shop"], "--role"),
    ],
)
def test_a_token_that_can_not_be(arguments: list[str], why: str) -> None:
    done = token(*arguments)
    assert done.returncode == 2
    assert why in done.stderr


def test_without_a_token(server: RunningServer) -> None:
    answer = submit(server)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="geartrain"')
    assert answer.json["type"] == "/problems#token-needed"
    answer = submit(server, Authorization="Basic b3BzOm8=")
    assert (answer.status, answer.json["type"]) == (401, "/problems#token-needed")


def test_the_refused_are_in_the_log(server: RunningServer) -> None:
    submit(server, "secret-plans", **bearer(READER))
    wait_until(lambda: "secret-plans" in server.log.read_text(), "the log tells it")
    (line,) = [line for line in server.log.read_text().splitlines() if "secret-plans" in line]
    assert "audit who=grafana host=127.0.0.1 action=" in line
    assert READER not in server.log.read_text()


def test_who_guesses_has_to_wait() -> None:
    with running_geartrain("--http=127.0.0.1:0", environment={}) as server:
        assert submit(server, **bearer("wrong")).status == 200  # there are no tokens, so that nothing is to be guessed
    for length in (1, 39, 1000):
        assert digest_of("x" * length) != digest_of(ROOT)


def test_after_many_wrong_tokens_that_host_waits(tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text(CONFIG)
    with running_geartrain("--http=127.0.0.1:0", f"--config={file}") as server:
        answers = [submit(server, **bearer("x" * number)).status for number in range(1, FAILURES + 1)]
        assert answers == [401] * FAILURES
        answer = submit(server, **bearer(ROOT))
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 61


# ── where HTTP may be served ────────────────────────────────────────────────────────────────────────────────────


def serve(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "geartrain", "serve", "--port=0", "--listen=127.0.0.1", "--store=memory:", *options],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_beyond_this_machine_it_needs_a_token_and_a_certificate(tmp_path: Path) -> None:
    said = serve("--http=0.0.0.0:0")
    assert "can be reached from other machines, and lacks a token" in said
    assert "and a certificate" in said
    assert "--http-open" in said
    file = tmp_path / "geartrain.toml"
    file.write_text(CONFIG)
    said = serve("--http=0.0.0.0:0", f"--config={file}")
    assert "lacks a certificate" in said


def test_bad_options_are_explained(tmp_path: Path) -> None:
    assert "--http is 'loop back': write host" in serve("--http=loop back")
    assert "--http-key is of no use without --http-certificate" in serve("--http=127.0.0.1:0", "--http-key=x")
    assert "--http-certificate /nowhere can't be used" in serve("--http=127.0.0.1:0", "--http-certificate=/nowhere")
    assert "--http-audit is '/nowhere/audit', which can't be opened" in serve(
        "--http=127.0.0.1:0", "--http-audit=/nowhere/audit"
    )
    file = tmp_path / "geartrain.toml"
    for line, fault in (
        ('digest = "plain"\nroles = ["read"]', "tokens.x.digest"),
        (
            f'digest = "{digest_of("x")}"\nroles = ["all"]',
            "'all' is no role: write read, submit, submit:PATTERN or operate",
        ),
        (f'digest = "{digest_of("x")}"', "tokens.x.roles"),
    ):
        file.write_text(f"[tokens.x]\n{line}\n")
        assert fault in serve(f"--config={file}")


def test_who_asks_is_not_made_anew_for_each_request() -> None:
    access = Access({}, [])
    assert access.identify("", "127.0.0.1") is access.identify("", "127.0.0.1")
    assert access.identify("", "::1").host == "::1"
