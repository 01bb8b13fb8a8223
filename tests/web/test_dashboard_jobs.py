"""The screens of jobs in a real browser: the search, what is done to many, and one job while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from api_place import Api, place, tokens_file
from browser import LOOKS, Browser

from geartrain import AdminClient, AssignedJob, Client, Worker
from servers import RunningServer, running_geartrain, wait_until

PICTURE = (  # one pixel of a GIF
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\xff\xff\xff!\xf9\x04\x00\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)


class Jobs:
    """A job server with a job of each kind; ``go_on`` lets the one that runs say more, and ``end`` lets it end."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.go_on = threading.Event()
        self.end = threading.Event()
        self.handles: dict[str, str] = {}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    store = f"sqlite:///{tmp_path_factory.mktemp('store')}/jobs.sqlite"
    with running_geartrain("--http=127.0.0.1:0", store=store) as server:
        it = Jobs(server)
        admin = AdminClient(server.address)
        for name in ("render", "draw"):
            admin.policy_set(name, results="1h")
        admin.policy_set("mail", attempts=2, delay="10ms")
        worker, other = Worker(server.address), Worker(server.address)

        @worker.function("mail")
        def mail(_: AssignedJob) -> bytes:
            raise ValueError("no such customer")

        @worker.function("draw")
        def draw(_: AssignedJob) -> bytes:
            return PICTURE

        @other.function("render")
        def render(job: AssignedJob) -> bytes:
            job.progress(1, 4)
            it.go_on.wait(120)
            job.progress(3, 4)
            job.send(b"three of four")
            it.end.wait(120)
            return b'{"frames": 12345678901234567890}'

        with worker, other, Client(server.address) as client:
            handles = {
                "queued": client.submit_background("video", b'{"file": "a.mkv", "tracks": [1, 2]}'),
                "delayed": client.submit_background("video", b"\xff\x00later", when=timedelta(days=1)),
                "running": client.submit_background("render", b"scene"),
                "dead": client.submit_background("mail", b"to nobody"),
                "drawn": client.submit_background("draw", b"a dot"),
            }
            it.handles = {name: handle.decode() for name, handle in handles.items()}
            api = Api(server.http_port)
            api.wait_for(it.handles["running"], "running")
            api.wait_for(it.handles["dead"], "dead")
            api.wait_for(it.handles["drawn"], "ended")
            try:
                yield it
            finally:
                it.go_on.set()
                it.end.set()


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_the_screens_of_jobs(browser: Browser, jobs: Jobs, theme: str, size: str) -> None:
    seen = {
        "queued": "no worker is registered for video",
        "delayed": "Stored",
        "running": "render",
        "dead": "ValueError: no such customer",
        "drawn": "Completed",
    }
    with browser.tab(jobs.server.http_port, theme, size) as tab:
        tab.open("/jobs", "Jobs")
        tab.sees(jobs.handles["dead"])
        tab.keep("jobs")
        assert tab.complaints() == []
        for name, text in seen.items():
            tab.open(f"/jobs/{jobs.handles[name]}", jobs.handles[name])
            tab.page.get_by_role("heading", name="Time line").wait_for()
            tab.sees(text)
            tab.keep(f"job-{name}")
            assert tab.complaints() == []
        assert tab.errors == []


def test_a_search_is_in_the_url(browser: Browser, jobs: Jobs) -> None:
    with browser.tab(jobs.server.http_port) as tab:
        tab.open("/jobs", "Jobs")
        tab.page.get_by_role("button", name="Dead", exact=True).click()
        tab.page.get_by_label("Function", exact=True).fill("mail")
        tab.page.wait_for_url("**/jobs?state=dead&function=mail")
        tab.sees(jobs.handles["dead"])
        tab.page.get_by_role("link", name=jobs.handles["queued"], exact=True).wait_for(state="detached")
        tab.page.get_by_label("Failed attempts", exact=True).fill("3")
        tab.sees("No job is like this")
        tab.page.get_by_role("button", name="Clear").click()
        tab.page.wait_for_url("**/jobs?state=dead")
        tab.open("/jobs?older_than=1h", "Jobs")
        tab.sees("No job is like this")
        assert tab.page.get_by_label("Older than").input_value() == "1h"
        assert tab.errors == []


def test_a_job_is_followed_to_its_end(browser: Browser, jobs: Jobs) -> None:
    with browser.tab(jobs.server.http_port) as tab:
        tab.open(f"/jobs/{jobs.handles['running']}", jobs.handles["running"])
        tab.sees("25.0 %")
        tab.page.get_by_role("heading", name="Progress and data").wait_for()
        jobs.go_on.set()
        tab.sees("75.0 %")
        tab.sees("three of four")
        jobs.end.set()
        tab.sees("12345678901234567890")
        tab.page.get_by_label("How the result is shown").get_by_role("button", name="Hex").click()
        tab.sees("7b 22 66 72 61 6d 65 73")
        assert tab.errors == []


def test_what_a_job_is_given_and_gives(browser: Browser, jobs: Jobs) -> None:
    with browser.tab(jobs.server.http_port) as tab:
        tab.open(f"/jobs/{jobs.handles['drawn']}", jobs.handles["drawn"])
        picture = tab.page.get_by_role("img", name="A picture: image/gif")
        picture.wait_for()
        assert picture.evaluate("picture => picture.naturalWidth") == 1
        tab.open(f"/jobs/{jobs.handles['delayed']}", jobs.handles["delayed"])
        tab.sees("ff 00 6c 61 74 65 72")
        assert tab.errors == []


def test_jobs_are_selected_and_cancelled(browser: Browser, jobs: Jobs) -> None:
    with Client(jobs.server.address) as client:
        first, second = (client.submit_background("heap", b"%d" % number).decode() for number in range(2))
        for number in range(101):
            client.submit_background("pile", b"%d" % number)
    api = Api(jobs.server.http_port)
    with browser.tab(jobs.server.http_port) as tab:
        tab.open("/jobs?function=heap", "Jobs")
        tab.page.get_by_label(f"Select {first}").check()
        tab.sees("1 job selected")
        tab.page.get_by_role("button", name="Priority", exact=True).click()
        tab.page.get_by_role("button", name="Change 1 job").click()
        tab.sees("1 job: high priority from now on")
        assert [api.get(f"/jobs/{handle}")["priority"] for handle in (first, second)] == ["high", "normal"]
        tab.open("/jobs?function=pile", "Jobs")
        tab.page.get_by_role("button", name="Select all that match").click()
        tab.page.get_by_role("button", name="Cancel", exact=True).click()
        tab.sees("Jobs of the function pile: 101 jobs")
        button = tab.page.get_by_role("button", name="Cancel 101 jobs")
        assert button.is_disabled()
        tab.page.get_by_label("Type 101 to go on").fill("101")
        button.click()
        tab.sees("Cancelled 101 jobs")
        tab.sees("No job is like this")
        assert tab.errors == []
    assert api.get("/jobs?function=pile")["jobs"] == []
    assert len(api.get("/jobs?function=heap")["jobs"]) == 2


def test_one_job_is_cancelled_and_one_is_tried_again(browser: Browser, jobs: Jobs) -> None:
    with Client(jobs.server.address) as client:
        handle = client.submit_background("heap", b"x").decode()
        dead = client.submit_background("mail", b"y").decode()
    api = Api(jobs.server.http_port)
    died = api.wait_for(dead, "dead")["died"]
    with browser.tab(jobs.server.http_port) as tab:
        tab.open(f"/jobs/{handle}", handle)
        tab.page.get_by_role("combobox").select_option("high")
        tab.sees(f"{handle} has high priority")
        tab.page.get_by_role("button", name="Cancel").click()
        tab.page.get_by_role("button", name="Cancel the job").click()
        tab.sees(f"{handle} is cancelled")
        tab.open(f"/jobs/{dead}", dead)
        tab.page.get_by_role("button", name="Try again").click()
        tab.sees(f"{dead} waits again")
    wait_until(lambda: api.wait_for(dead, "dead")["died"] > died, "it has been tried again")


def test_what_has_gone_is_asked_for_without_an_error(browser: Browser, jobs: Jobs) -> None:
    with Client(jobs.server.address) as client:
        handle = client.submit_background("heap", b"x").decode()
    with browser.tab(jobs.server.http_port) as tab:
        for path, heading, text in (
            ("/jobs/H:nowhere:1", "H:nowhere:1", "This job is not known"),
            ("/dead/H:nowhere:1", "H:nowhere:1", "There is no such dead letter"),
            ("/connections/123456", "Connection 123456", "This connection has gone"),
            ("/connections/none", "Connection none", "This connection has gone"),
            ("/playground?job=H:nowhere:1", "Playground", "Nothing is told of it any more"),
        ):
            tab.open(path, heading)
            tab.sees(text)
        tab.open(f"/jobs/{handle}", handle)
        tab.page.get_by_role("button", name="Cancel").click()
        tab.page.get_by_role("button", name="Cancel the job").click()
        tab.sees(f"{handle} is cancelled")
        tab.page.get_by_text("cancelled", exact=True).first.wait_for()
        assert tab.errors == []


def test_who_only_reads_can_change_no_job(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("tokens") / "geartrain.toml"
    file.write_text(tokens_file({"reader": ["read"], "sender": ["submit"]}))
    with place(f"--config={file}") as at:
        handle = at.with_token("token-of-sender").submit("g", workload="x")
        with browser.tab(at.server.http_port) as tab:
            tab.log_in("/jobs", "token-of-reader")
            tab.sees(handle)
            assert tab.page.get_by_role("checkbox").count() == 0
            assert tab.page.get_by_role("button", name="Cancel").count() == 0
            tab.page.get_by_role("link", name=handle).click()
            tab.page.get_by_role("heading", name="Payload").wait_for()
            assert tab.page.get_by_role("button", name="Cancel").count() == 0
