"""The dashboard's files, as a browser gets them."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_place import Place, place
from starlette.applications import Starlette
from starlette.types import Message

from geartrain.web.pages import FOLDER, Pages
from servers import missing

HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    if not (FOLDER / "index.html").exists():
        missing("needs the dashboard: make dashboard")
    with place() as opened:
        yield opened


def asset_of(there: Place, kind: str) -> str:
    found = re.search(rf'"(/dashboard/assets/[^"]+\.{kind})"', there.api.http.ask("GET", "/dashboard/").body.decode())
    assert found is not None
    return found[1]


def test_a_browser_is_led_to_the_dashboard(there: Place) -> None:
    for path in ("/", "/dashboard"):
        answer = there.api.http.ask("GET", path, headers=HTML)
        assert (answer.status, answer.headers["location"]) == (302, "/dashboard/")


def test_a_program_is_told_what_there_is(there: Place) -> None:
    answer = there.api.http.ask("GET", "/")
    assert answer.status == 404
    assert "/api/v1" in answer.json["detail"]


@pytest.mark.parametrize("path", ["", "functions", "functions/a%2Fb", "no/such/screen", "../../etc/passwd"])
def test_each_screen_has_a_path_of_its_own(there: Place, path: str) -> None:
    answer = there.api.http.ask("GET", f"/dashboard/{path}", headers=HTML)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    assert b'<div id="app">' in answer.body


def test_files_with_a_digest_are_kept_for_good(there: Place) -> None:
    for kind, media_type in (("js", "text/javascript"), ("css", "text/css"), ("woff2", "font/woff2")):
        answer = there.api.http.ask("GET", asset_of(there, kind))
        assert answer.headers["content-type"].startswith(media_type)
        assert "immutable" in answer.headers["cache-control"]


def test_a_file_comes_compressed_to_who_can_read_that(there: Place) -> None:
    path = asset_of(there, "js")
    plain = there.api.http.ask("GET", path)
    assert "content-encoding" not in plain.headers
    zipped = there.api.http.ask("GET", path, headers={"Accept-Encoding": "gzip, deflate"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    best = there.api.http.ask("GET", path, headers={"Accept-Encoding": "gzip, deflate, br;q=1.0"})
    assert best.headers["content-encoding"] == "br"
    assert len(best.body) < len(zipped.body)
    assert "Accept-Encoding" in best.headers["vary"]


def test_what_a_browser_has_is_not_sent_again(there: Place) -> None:
    tag = there.api.http.ask("GET", "/dashboard/").headers["etag"]
    answer = there.api.http.ask("GET", "/dashboard/", headers={"If-None-Match": tag})
    assert (answer.status, answer.body) == (304, b"")


def test_a_file_of_another_version_is_not_mistaken_for_a_screen(there: Place) -> None:
    answer = there.api.http.ask("GET", "/dashboard/assets/index-AAAAAAAA.js")
    assert (answer.status, answer.json["type"]) == (404, "/problems#no-such-path")


def test_nothing_of_a_page_can_run_that_was_not_built_with_it(there: Place) -> None:
    answer = there.api.http.ask("GET", "/dashboard/", headers=HTML)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = answer.body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page)


def test_all_scripts_together_are_small() -> None:
    if not (FOLDER / "index.html").exists():
        missing("needs the dashboard: make dashboard")
    size = sum(len(gzip.compress(path.read_bytes())) for path in FOLDER.rglob("*.js"))
    assert size < 200_000


def test_an_installation_without_a_dashboard_says_so(tmp_path: Path) -> None:
    status, text = asyncio.run(page_of(Pages(tmp_path), "/dashboard/functions"))
    assert status == 404
    assert "no dashboard" in text
    assert "make dashboard" in text


async def page_of(pages: Pages, path: str) -> tuple[int, str]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await Starlette(routes=pages.routes())(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()
