"""Dead letters, workers and connections in a real browser, against a real daemon with real workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from api_place import tokens_file
from browser import LOOKS, Browser

from geartrain import AdminClient, AssignedJob, Client, Worker
from servers import RunningServer, running_geartrain, wait_until


@dataclass
class Place:
    """A job server with dead letters, and workers, one of which runs a job."""

    server: RunningServer
    admin: AdminClient

    @property
    def port(self) -> int:
        return self.server.http_port

    def kill(self, function: str, *workloads: bytes) -> list[str]:
        """Have jobs become dead letters; their handles."""
        self.admin.policy_set(function, attempts=1, dead="1d")
        worker = Worker(self.server.address, id="killer")

        @worker.function(function)
        def fail(job: AssignedJob) -> bytes:
            raise ValueError(f"no {job.workload.decode()}")

        before = self.letters(function)
        with Client(self.server.address) as client, worker:
            handles = [client.submit_background(function, workload).decode() for workload in workloads]
            wait_until(lambda: self.letters(function) == before + len(workloads), "its jobs are dead letters")
        return handles

    def letters(self, function: str) -> int:
        return len(list(self.admin.dead_letters(function)))


@pytest.fixture(scope="module")
def busy() -> Iterator[Place]:
    with running_geartrain("--http=127.0.0.1:0") as server:
        may_end = threading.Event()
        worker = Worker(server.address, id="ada")

        @worker.function("video")
        def video(job: AssignedJob) -> bytes:
            job.progress(1, 4)
            may_end.wait()
            return b""

        with worker, Client(server.address) as client:
            client.submit_background("video")
            place = Place(server, AdminClient(server.address))
            place.kill("mail", b"customer", b"customer", b"template")
            place.kill("report", b"total")
            try:
                yield place
            finally:
                may_end.set()


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_an_empty_server_teaches(browser: Browser, empty: RunningServer, theme: str, size: str) -> None:
    with browser.tab(empty.http_port, theme, size) as tab:
        for path, heading, text in (
            ("/dead", "Dead letters", "geartrain policy set resize attempts=5 dead=7d"),
            ("/dead?function=mail", "Dead letters", "None of these"),
            ("/dead/groups/7", "Dead letters", "This group has no letters any more"),
            ("/connections", "Workers and connections", "geartrain work reverse -- rev"),
            ("/connections?function=a%20b", "Workers and connections", "geartrain work 'a b' -- cat"),
        ):
            tab.open(path, heading)
            tab.sees(text)
            assert tab.complaints() == []
        tab.open("/dead", "Dead letters")
        tab.sees("No dead letters")
        tab.keep("empty-dead")
        assert tab.errors == []


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_each_screen_is_shown(browser: Browser, busy: Place, theme: str, size: str) -> None:
    with browser.tab(busy.port, theme, size) as tab:
        tab.open("/dead", "Dead letters")
        tab.sees("ValueError: no template")
        tab.keep("dead")
        assert tab.complaints() == []
        tab.page.get_by_role("link", name="ValueError: no customer").click()
        tab.sees("2 jobs of mail were given up: its worker sent an exception.")
        tab.keep("dead-group")
        assert tab.complaints() == []
        tab.page.get_by_role("table").get_by_role("link").first.click()
        tab.sees("After 1 of 1 attempt: its worker sent an exception.")
        tab.page.get_by_role("heading", name="Payload").wait_for()
        tab.page.get_by_text("customer", exact=True).wait_for()
        tab.keep("dead-letter")
        assert tab.complaints() == []
        tab.open("/connections", "Workers and connections")
        tab.page.get_by_text("busy", exact=True).wait_for()
        tab.keep("connections")
        assert tab.complaints() == []
        tab.page.get_by_role("link", name="ada").click()
        tab.sees("It runs a job.")
        tab.sees("25.0 %, for")
        tab.keep("connection")
        assert tab.complaints() == []
        assert tab.errors == []


def test_groups_are_narrowed_and_the_url_says_so(browser: Browser, busy: Place) -> None:
    with browser.tab(busy.port) as tab:
        tab.open("/dead", "Dead letters")
        tab.page.get_by_role("combobox", name="Function").fill("report")
        tab.page.keyboard.press("Enter")
        tab.sees("1 in 1 group")
        assert "function=report" in tab.page.url
        tab.page.get_by_label("Reason").select_option("timeout")
        tab.sees("None of these")
        assert "reason=timeout" in tab.page.url
        tab.open("/connections?function=mail", "Workers and connections")
        tab.sees("No worker can do mail")
        tab.page.get_by_role("button", name="All connections").click()
        tab.page.get_by_text("client", exact=True).first.wait_for()
        assert tab.page.url.endswith("?show=all")
        assert tab.errors == []


def test_many_groups_come_in_pages(browser: Browser, busy: Place) -> None:
    busy.kill("pile", *(b"%d" % min(number, 50) for number in range(52)))
    with browser.tab(busy.port) as tab:
        tab.open("/dead?function=pile", "Dead letters")
        tab.sees("52 in 51 groups")
        tab.sees("ValueError: no 50")  # the largest first
        assert tab.page.locator("td.main a").count() == 50
        tab.page.get_by_role("button", name="Next page").click()
        tab.page.get_by_text("ValueError: no 50").wait_for(state="detached")
        tab.sees("ValueError: no 0")
        assert tab.page.locator("td.main a").count() == 1
        tab.sees("52 in 51 groups")
        tab.page.get_by_role("button", name="Purge all").click()
        tab.sees("52 dead letters of pile would be gone for good")
        tab.sees("and 47 other groups")
        tab.page.get_by_role("button", name="Cancel").click()
        tab.page.get_by_role("button", name="First page").click()
        tab.sees("ValueError: no 50")
        assert tab.errors == []


def test_a_letter_a_group_and_all_of_a_function_are_tried_again(browser: Browser, busy: Place) -> None:
    first, *_ = busy.kill("again", b"a", b"a", b"b", b"c")
    with browser.tab(busy.port) as tab:
        tab.open(f"/dead/{first}", first)
        tab.page.get_by_role("button", name="Try again").click()
        tab.sees(f"{first} waits again")
        tab.sees("The job is queued now.")
        assert busy.letters("again") == 3
        tab.open("/dead?function=again", "Dead letters")
        tab.page.get_by_role("link", name="ValueError: no a").click()
        tab.page.get_by_role("button", name="Try all again").click()
        tab.sees("1 dead letter of again in this group")
        tab.page.get_by_role("button", name="Try again", exact=True).click()
        tab.sees("1 job waits again")
        assert busy.letters("again") == 2
        tab.sees("2 in 2 groups")
        tab.page.get_by_role("button", name="Try all again").click()
        tab.sees("2 dead letters of again would wait")
        rate = tab.page.get_by_label("How many a second")
        rate.fill("many")
        assert tab.page.get_by_role("button", name="Try again", exact=True).is_disabled()
        rate.fill("1000")
        tab.page.get_by_role("button", name="Try again", exact=True).click()
        tab.sees("2 jobs will wait again, 1,000 each second")
        wait_until(lambda: not busy.letters("again"), "all wait again")
        assert tab.errors == []


def test_a_purge_is_shown_before_and_wants_the_name(browser: Browser, busy: Place) -> None:
    first, *_ = busy.kill("heap", b"a", b"b", b"b", b"c")
    with browser.tab(busy.port) as tab:
        tab.open(f"/dead/{first}", first)
        tab.page.get_by_role("button", name="Purge").click()
        tab.page.get_by_role("button", name="Purge 1 dead letter").click()
        tab.sees("1 dead letter is gone")
        tab.open("/dead?function=heap", "Dead letters")
        tab.page.get_by_role("button", name="Purge these letters of heap: ValueError: no b").click()
        tab.sees("2 dead letters of heap in this group would be gone for good")
        button = tab.page.get_by_role("button", name="Purge 2 dead letters")
        assert button.is_disabled()
        tab.page.get_by_label("Type heap to go on").fill("heap")
        button.click()
        tab.sees("2 dead letters are gone")
        assert busy.letters("heap") == 1
        tab.page.get_by_role("button", name="Purge all").click()
        tab.page.get_by_label("Type heap to go on").fill("heap")
        tab.keep("dead-purge")
        tab.page.get_by_role("button", name="Purge 1 dead letter").click()
        tab.sees("None of these")
        assert busy.letters("heap") == 0
        assert busy.letters("mail") == 3
        assert tab.errors == []


def test_a_worker_is_disconnected_and_its_job_goes_on(browser: Browser, busy: Place) -> None:
    worker = Worker(busy.server.address, id="leaver")

    @worker.function("leave")
    def leave(job: AssignedJob) -> bytes:
        return b""

    with worker, browser.tab(busy.port) as tab:
        tab.open("/connections?function=leave", "Workers and connections")
        before = tab.page.get_by_role("link", name="leaver").get_attribute("href")
        tab.page.get_by_role("button", name="Disconnect leaver at 127.0.0.1").click()
        tab.sees("Whoever is at its other end may connect again")
        tab.keep("disconnect")
        tab.page.get_by_role("button", name="Disconnect", exact=True).click()
        tab.sees("leaver at 127.0.0.1 is disconnected")
        tab.page.wait_for_function(
            "before => { const link = document.querySelector('td.main a');"
            " return link && link.getAttribute('href') !== before }",
            arg=before,
        )  # it has come again, as another connection
        assert tab.errors == []


def test_who_only_reads_sees_no_button_that_fails(browser: Browser, tmp_path: Path) -> None:
    config = tmp_path / "tokens.toml"
    config.write_text(tokens_file({"reader": ["read"]}))
    with running_geartrain("--http=127.0.0.1:0", f"--config={config}") as server, browser.tab(server.http_port) as tab:
        (handle,) = Place(server, AdminClient(server.address)).kill("mail", b"customer")
        worker = Worker(server.address, id="ada")
        worker.function("video")(lambda job: b"")
        with worker:
            tab.log_in("/", "token-of-reader")
            for path, heading, shown in (
                ("/dead", "Dead letters", "ValueError: no customer"),
                (f"/dead/{handle}", handle, "After 1 of 1 attempt"),
                ("/connections", "Workers and connections", "ada"),
            ):
                tab.open(path, heading)
                tab.sees(shown)
                for action in ("Try", "Purge", "Disconnect"):
                    assert tab.page.get_by_role("button", name=action).count() == 0, (path, action)
