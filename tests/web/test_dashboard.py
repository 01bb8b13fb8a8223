"""The dashboard in a real browser, against a real daemon with real workers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_place import place, tokens_file
from browser import LOOKS, Browser

from geartrain import AdminClient, AssignedJob, Client, Worker
from servers import RunningServer, free_port, running_geartrain


@pytest.fixture(scope="module")
def busy() -> Iterator[RunningServer]:
    """A job server under load: jobs that succeed, jobs that fail, and one function that nobody does."""
    with running_geartrain("--http=127.0.0.1:0") as server:
        worker = Worker(server.address)

        @worker.function("mail")
        def mail(job: AssignedJob) -> bytes:
            if job.workload.endswith(b"7"):
                raise ValueError("no such customer")
            return b"sent"

        AdminClient(server.address).policy_set("mail", attempts=2, delay="10ms")
        has_ended = threading.Event()

        def submit() -> None:
            with Client(server.address) as client:
                for number in itertools.count():
                    client.submit_background("mail", b"%d" % number)
                    if number % 20 == 0:
                        client.submit_background("video", b"x")
                    if has_ended.wait(0.02):
                        return

        thread = threading.Thread(target=submit)
        with worker:
            thread.start()
            try:
                yield server
            finally:
                has_ended.set()
                thread.join()


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_an_empty_server_teaches(browser: Browser, empty: RunningServer, theme: str, size: str) -> None:
    with browser.tab(empty.http_port, theme, size) as tab:
        tab.open("/", "Overview")
        tab.sees("No workers and no jobs yet")
        tab.sees("geartrain work reverse -- rev")
        tab.keep("empty-overview")
        assert tab.complaints() == []
        tab.open("/functions", "Functions")
        tab.sees("No functions yet")
        tab.keep("empty-functions")
        assert tab.complaints() == []
        assert tab.errors == []


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_each_screen_is_shown_under_load(browser: Browser, busy: RunningServer, theme: str, size: str) -> None:
    with browser.tab(busy.http_port, theme, size) as tab:
        tab.open("/", "Overview")
        tab.sees("See how to start a worker")
        tab.page.locator("canvas").first.wait_for()
        tab.keep("overview")
        assert tab.complaints() == []
        tab.open("/functions?sort=waiting", "Functions")
        tab.sees("no worker")
        tab.keep("functions")
        assert tab.complaints() == []
        tab.open("/functions/mail", "mail")
        tab.sees("ValueError: no such customer")
        tab.keep("function")
        assert tab.complaints() == []
        assert tab.errors == []


def test_the_curves_of_all_functions_of_a_page_are_asked_for_at_once(browser: Browser, busy: RunningServer) -> None:
    with browser.tab(busy.http_port) as tab:
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.open("/functions", "Functions")
        for name in ("mail", "video"):
            row = tab.page.get_by_role("row").filter(has=tab.page.get_by_role("link", name=name, exact=True))
            row.locator('svg.spark path[d^="M"]').first.wait_for(state="attached")
        (question,) = [url for url in asked if "/history" in url]
        assert "/api/v1/history/functions?" in question
        assert {"function=mail", "function=video"} <= set(question.split("?")[1].split("&"))
        assert tab.errors == []


def test_busy_workers_and_the_age_of_the_oldest_job_have_curves(browser: Browser, busy: RunningServer) -> None:
    with browser.tab(busy.http_port) as tab:
        for path, heading in (("/", "Overview"), ("/functions/video", "video")):
            tab.open(path, heading)
            chart = tab.page.locator("figure").filter(has=tab.page.get_by_role("heading", name="Workers", exact=True))
            chart.get_by_text("busy").wait_for()
            oldest = tab.page.locator(".number").filter(has_text="Oldest waiting")
            oldest.locator('svg.spark path[d^="M"]').first.wait_for(state="attached")
        assert tab.errors == []


def test_a_function_is_paused_and_resumed(browser: Browser, busy: RunningServer) -> None:
    with browser.tab(busy.http_port) as tab:
        tab.open("/functions/video", "video")
        tab.page.get_by_role("button", name="Pause video").click()
        tab.sees("video is paused")
        tab.page.get_by_role("button", name="Resume video").click()
        tab.sees("video goes on")
        assert tab.errors == []


def test_a_purge_is_shown_before_and_wants_the_name(browser: Browser, busy: RunningServer) -> None:
    with Client(busy.address) as client:
        client.submit_background("heap", b"a")
        client.submit_background("heap", b"b")
    with browser.tab(busy.http_port) as tab:
        tab.open("/functions/heap", "heap")
        tab.page.get_by_role("button", name="Purge").click()
        tab.sees("2 jobs would be taken away for good")
        button = tab.page.get_by_role("button", name="Cancel 2 jobs")
        assert button.is_disabled()
        tab.page.get_by_label("Type heap to go on").fill("heap")
        button.click()
        tab.sees("The waiting jobs of heap are gone")
        assert tab.errors == []
    assert "heap\t0\t0\t0" in busy.ask("status")


def test_a_policy_is_set_changed_and_taken_away(browser: Browser, busy: RunningServer) -> None:
    AdminClient(busy.address).create_function("ruled")
    with browser.tab(busy.http_port) as tab:
        tab.open("/functions/ruled", "ruled")
        tab.sees("No policy")
        tab.page.get_by_role("button", name="Policy").click()
        tab.page.get_by_label("attempts", exact=True).fill("many")
        tab.page.get_by_role("button", name="Save").click()
        tab.sees("attempts=many")  # the refusal says which value was wrong
        tab.page.get_by_label("attempts", exact=True).fill("5")
        tab.page.get_by_role("button", name="Save").click()
        tab.sees("The policy of ruled holds from now on")
        tab.page.get_by_role("button", name="Policy").click()
        tab.page.get_by_label("attempts", exact=True).fill("")
        tab.page.get_by_role("button", name="Save").click()
        tab.sees("ruled has no policy of its own any more")


def test_a_lost_connection_is_told_and_comes_back(browser: Browser) -> None:
    port, http_port = free_port(), free_port()
    with browser.tab(http_port) as tab:
        with running_geartrain(f"--http=127.0.0.1:{http_port}", port=port) as server:
            assert server.http_port == http_port
            tab.open("/", "Overview")
        tab.sees("Connection lost since")
        tab.keep("lost")
        with running_geartrain(f"--http=127.0.0.1:{http_port}", port=port):
            tab.sees("Takes jobs")


def test_a_token_opens_a_session_that_shows_no_buttons_it_may_not_use(browser: Browser, tmp_path: Path) -> None:
    config = tmp_path / "geartrain.toml"
    config.write_text(tokens_file({"reader": ["read"], "operator": ["read", "operate"]}))
    with place(f"--config={config}") as there, browser.tab(there.server.http_port) as tab:
        tab.page.goto(f"http://127.0.0.1:{there.server.http_port}/dashboard/functions/f")
        tab.page.get_by_label("Token").fill("wrong")
        tab.page.get_by_role("button", name="Log in").click()
        tab.sees("No such token")
        tab.keep("login")
        assert tab.complaints() == []
        tab.page.get_by_label("Token").fill("token-of-reader")
        tab.page.get_by_role("button", name="Log in").click()
        tab.page.get_by_role("heading", name="f", exact=True).wait_for()
        tab.sees("No policy")
        assert tab.page.get_by_role("button", name="Pause f").count() == 0
        tab.page.get_by_role("button", name="Log out").click()
        tab.page.get_by_label("Token").fill("token-of-operator")
        tab.page.get_by_role("button", name="Log in").click()
        tab.page.get_by_role("button", name="Pause f").click()
        tab.sees("f is paused")


def test_a_theme_is_chosen_and_kept(browser: Browser, empty: RunningServer) -> None:
    with browser.tab(empty.http_port) as tab:
        tab.open("/", "Overview")
        light = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.page.get_by_role("button", name="Dark").click()
        tab.open("/", "Overview")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_each_big_number_leads_to_what_explains_it(browser: Browser, busy: RunningServer) -> None:
    with browser.tab(busy.http_port) as tab:
        for number, place, heading in (
            ("Failing", "jobs?attempt=1", "Jobs"),
            ("Waiting", "jobs?state=queued", "Jobs"),
            ("Oldest waiting", "jobs?state=queued&order=oldest", "Jobs"),
            ("Workers busy", "connections", "Workers and connections"),
            ("Dead letters", "dead", "Dead letters"),
        ):
            tab.open("/", "Overview")
            numbers = tab.page.get_by_role("region", name="Numbers")
            numbers.get_by_role("link").filter(has=tab.page.get_by_text(number, exact=True)).click()
            tab.page.wait_for_url(f"**/dashboard/{place}")
            tab.page.get_by_role("heading", name=heading, level=1).wait_for()
        assert tab.errors == []


def test_what_is_looked_at_stands_in_the_url(browser: Browser, busy: RunningServer) -> None:
    with browser.tab(busy.http_port) as tab:
        tab.open("/", "Overview")
        tab.page.get_by_role("button", name="6 hours").click()
        assert tab.page.url.endswith("/dashboard/?span=6h")
        tab.page.get_by_role("link", name="Functions", exact=True).click()
        tab.page.get_by_role("heading", name="Functions", level=1).wait_for()
        tab.page.get_by_role("button", name="Waiting").click()
        tab.page.get_by_role("searchbox").fill("vid")
        tab.page.wait_for_url("**/dashboard/functions?sort=waiting&q=vid")
        tab.page.get_by_role("link", name="mail").wait_for(state="detached")
        tab.page.go_back()
        tab.page.get_by_role("heading", name="Overview").wait_for()
        assert tab.page.get_by_role("button", name="6 hours").get_attribute("aria-pressed") == "true"
        assert tab.errors == []
