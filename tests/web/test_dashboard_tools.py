"""Schedules, playground, settings and audit in a real browser, against a real daemon with real workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_place import place, tokens_file
from browser import LOOKS, Browser, Tab

from geartrain import AdminClient, AssignedJob, Worker
from servers import RunningServer, missing, needs, running_geartrain

AWKWARD = 'it\'s "so" \\ $HOME `x` ü\nand more'  # what each language quotes otherwise


@pytest.fixture(scope="module")
def busy() -> Iterator[RunningServer]:
    """A job server with schedules, and a worker that echoes, tells how far it is, and fails."""
    with running_geartrain("--http=127.0.0.1:0") as server:
        worker = Worker(server.address)

        @worker.function("echo")
        def echo(job: AssignedJob) -> bytes:
            return job.workload

        @worker.function("resize")
        def resize(job: AssignedJob) -> bytes:
            for step in (1, 2):
                job.progress(step, 2)
                job.send(b"step %d\n" % step)
            return b'{"width":80}'

        @worker.function("fail")
        def fail(job: AssignedJob) -> bytes:
            raise ValueError("no such picture")

        admin = AdminClient(server.address)
        admin.schedule_set("nightly", cron="30 2 * * *", function="echo", workload="all", zone="Europe/Berlin")
        admin.schedule_set("poll", every="30m", function="echo")
        admin.schedule_set("old", cron="0 9 * * 1-5", function="echo")
        admin.schedule_pause("old")
        admin.create_function("done")
        admin.pause("done")
        with worker:
            yield server


def lists(tab: Tab, text: str) -> None:
    """Wait until the list of schedules says so; the time line above it has the same words."""
    tab.page.get_by_role("table").get_by_text(text).first.wait_for()


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_an_empty_server_teaches(browser: Browser, empty: RunningServer, theme: str, size: str) -> None:
    with browser.tab(empty.http_port, theme, size) as tab:
        for path, heading, text in (
            ("/schedules", "Schedules", "No schedules yet"),
            ("/playground", "Playground", "What happens to the job is told here"),
            ("/audit", "Audit", "Nothing has been done yet"),
        ):
            tab.open(path, heading)
            tab.sees(text)
            tab.keep(f"empty{path.replace('/', '-')}")
            assert tab.complaints() == []
        assert tab.errors == []


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_each_screen_is_shown(browser: Browser, busy: RunningServer, theme: str, size: str) -> None:
    with browser.tab(busy.http_port, theme, size) as tab:
        for path, heading, text in (
            ("/schedules", "Schedules", "Next runs"),
            ("/schedules?show=nightly", "Schedules", "Europe/Berlin"),
            ("/schedules?edit=nightly", "Schedules", "Runs missed while the job server was down"),
            ("/settings", "Settings", "max_memory"),
            ("/audit", "Audit", "pause function"),
        ):
            tab.open(path, heading)
            tab.sees(text)
            tab.keep(path.strip("/").replace("?", "-").replace("=", "-"))
            assert tab.complaints() == []
            assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        tab.open("/playground?function=resize&background=yes", "Playground")
        tab.page.get_by_role("button", name="Submit", exact=True).click()
        tab.sees("80}")
        tab.keep("playground")
        assert tab.complaints() == []
        assert tab.errors == []


def test_a_schedule_is_added_run_paused_changed_and_deleted(browser: Browser, busy: RunningServer) -> None:
    admin = AdminClient(busy.address)
    with browser.tab(busy.http_port) as tab:
        page = tab.page
        tab.open("/schedules", "Schedules")
        page.get_by_role("button", name="Add").click()
        page.get_by_label("Name").fill("yearly")
        page.get_by_label("Function").fill("report")
        page.get_by_label("Expression").fill("0 3 1 1 nonsense")
        page.get_by_label("Payload").fill(AWKWARD)
        page.get_by_role("dialog").get_by_role("button", name="Add").click()
        tab.sees("nonsense")  # the refusal says what was wrong
        page.get_by_label("Expression").fill("0 3 1 1 *")
        page.get_by_role("dialog").get_by_role("button", name="Add").click()
        tab.sees("yearly runs as it says from now on")
        lists(tab, "every 1 Jan at 03:00")
        assert admin.show_schedule("yearly")[0].workload == AWKWARD.encode()

        page.get_by_role("button", name="Run now yearly").click()
        tab.sees("A job of yearly is submitted")
        assert "report\t1\t0\t0" in busy.ask("status")

        page.get_by_role("button", name="Pause yearly").click()
        tab.sees("yearly is paused")
        page.get_by_role("button", name="Resume yearly").click()
        tab.sees("yearly runs again from now on")

        page.get_by_role("button", name="Edit yearly").click()
        page.get_by_role("button", name="At intervals").click()
        page.get_by_label("Interval").fill("6h")
        page.get_by_role("button", name="Save").click()
        lists(tab, "every 6 hours")
        changed = admin.show_schedule("yearly")[0]
        assert changed.workload == AWKWARD.encode()
        assert (changed.keys["every"], changed.keys.get("cron")) == ("6h", None)

        page.get_by_role("button", name="Delete yearly").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        tab.sees("yearly is deleted")
        page.get_by_role("link", name="yearly").first.wait_for(state="detached")


def test_many_schedules_come_in_pages(browser: Browser) -> None:
    with running_geartrain("--http=127.0.0.1:0") as server, browser.tab(server.http_port) as tab:
        admin = AdminClient(server.address)
        for number in range(51):
            admin.schedule_set(f"s{number:02}", every=f"{99 - number}h", function="mail" if number % 10 else "report")
        tab.open("/schedules?span=week", "Schedules")
        lists(tab, "every 99 hours")
        tab.sees("And others, whose first run is later")
        assert tab.page.locator("td.main a").count() == 50
        tab.page.get_by_role("button", name="Next page").click()
        lists(tab, "every 49 hours")
        assert tab.page.locator("td.main a").all_inner_texts() == ["s50"]
        tab.page.get_by_role("searchbox").fill("REPORT")
        lists(tab, "every 99 hours")
        tab.page.wait_for_function("document.querySelectorAll('td.main a').length == 6")
        tab.page.get_by_role("button", name="Next run").click()
        tab.page.wait_for_url("**/dashboard/schedules?span=week&q=REPORT&sort=next_run")
        tab.page.get_by_role("button", name="Add").click()
        tab.page.get_by_label("Name").fill("s50")  # one that is not on this page
        tab.sees("There is one of this name")
        assert tab.errors == []


def test_a_schedule_of_the_file_is_not_deleted(browser: Browser, tmp_path: Path) -> None:
    config = tmp_path / "geartrain.toml"
    config.write_text('[schedules.fixed]\ncron = "0 1 * * *"\nfunction = "f"\n')
    with place(f"--config={config}") as there, browser.tab(there.server.http_port) as tab:
        tab.open("/schedules", "Schedules")
        tab.page.get_by_role("button", name="Delete fixed").click()
        tab.sees("It stands in the configuration file")
        assert tab.page.get_by_role("dialog").get_by_role("button", name="Delete").is_disabled()


def test_a_job_is_submitted_and_followed(browser: Browser, busy: RunningServer, tmp_path: Path) -> None:
    with browser.tab(busy.http_port) as tab:
        page = tab.page
        tab.open("/playground", "Playground")
        page.get_by_label("Function").fill("resize")
        page.get_by_role("button", name="Submit and wait").click()
        tab.sees("completed")
        tab.sees("step 1")  # also if it came before anybody could follow
        tab.sees("80}")

        page.get_by_label("Function").fill("fail")
        page.get_by_role("button", name="Submit and wait").click()
        tab.sees("ValueError: no such picture")

        page.get_by_label("Function").fill("echo")
        page.get_by_role("button", name="JSON").click()
        page.get_by_label("Payload").fill('{"a": ')
        tab.sees("This is no JSON")
        assert page.get_by_role("button", name="Submit and wait").is_disabled()

        page.get_by_role("button", name="File").click()
        file = tmp_path / "bytes"
        file.write_bytes(b"\x00\xff")
        page.get_by_label("Payload").set_input_files(file)
        tab.sees("2 B")
        page.get_by_label("In the background").check()
        page.get_by_role("button", name="Submit", exact=True).click()
        tab.sees("00 ff")

        page.get_by_label("Delay").fill("3600")
        page.get_by_role("button", name="Submit", exact=True).click()
        tab.sees("waiting")
        assert "function=echo" in page.url
        assert "job=H" in page.url


def copied(tab: Tab, language: str) -> str:
    """The call as the playground shows it."""
    tab.page.get_by_role("button", name=language, exact=True).click()
    return str(tab.page.get_by_label("The same call").locator("pre").inner_text())


@pytest.mark.parametrize("payload", [AWKWARD, ""])
def test_the_calls_that_are_shown_work(browser: Browser, busy: RunningServer, payload: str, tmp_path: Path) -> None:
    php = needs("php", "php-cli")
    if b"gearman" not in subprocess.check_output([php, "-m"]).split():
        missing("needs PHP's gearman extension: install the package php-gearman")
    with browser.tab(busy.http_port) as tab:
        tab.open("/playground?function=echo&unique=it's+one&priority=high", "Playground")
        tab.page.get_by_label("Payload").fill(payload)
        tab.sees(f"127.0.0.1:{busy.http_port}")
        commands = {"curl": ["bash"], "Python": [sys.executable], "PHP": [php]}
        for delay in ("", "0.01"):
            tab.page.get_by_label("Delay").fill(delay)
            for language, command in commands.items():
                file = tmp_path / "call"
                file.write_text(copied(tab, language))
                answer = subprocess.check_output([*command, str(file)], stderr=subprocess.PIPE, text=True, timeout=60)
                if delay:
                    assert "H:" in answer
                elif language == "curl" or not payload:
                    assert '"completed"' in answer or answer.strip() == ""
                else:
                    assert answer.rstrip("\n") == payload


def test_options_are_found_and_tell_who_has_given_them(browser: Browser, tmp_path: Path) -> None:
    config = tmp_path / "geartrain.toml"
    config.write_text('webhook_secret = "do-not-tell"\n')
    with place(f"--config={config}") as there, browser.tab(there.server.http_port) as tab:
        tab.open("/settings", "Settings")
        tab.page.get_by_role("button", name="Given").click()
        tab.page.wait_for_url("**/dashboard/settings?from=given")
        tab.sees("webhook_secret in")
        assert "do-not-tell" not in tab.page.content()
        tab.page.get_by_role("searchbox").fill("--config")
        tab.page.get_by_text("webhook_secret in").wait_for(state="detached")
        tab.sees("config")


def test_actions_are_found(browser: Browser, busy: RunningServer) -> None:
    admin = AdminClient(busy.address)
    admin.create_function("audited")
    admin.drop_function("audited")
    with browser.tab(busy.http_port) as tab:
        tab.open("/audit", "Audit")
        tab.page.get_by_label("Action begins with").fill("drop")
        tab.page.wait_for_url("**/dashboard/audit?action=drop")
        tab.sees("drop function")
        tab.page.get_by_text("pause function").first.wait_for(state="detached")
        tab.page.get_by_label("Who").fill("nobody-of-this-name")
        tab.sees("No such action")
        tab.page.get_by_role("button", name="Show all").click()
        tab.sees("pause function")


def test_a_reader_sees_no_button_that_is_refused(browser: Browser, tmp_path: Path) -> None:
    config = tmp_path / "geartrain.toml"
    config.write_text(tokens_file({"reader": ["read"]}) + '[schedules.fixed]\ncron = "0 1 * * *"\nfunction = "f"\n')
    with place(f"--config={config}") as there, browser.tab(there.server.http_port) as tab:
        tab.log_in("/schedules?new=yes", "token-of-reader")
        navigation = tab.page.get_by_role("navigation", name="Screens").first
        assert navigation.get_by_role("link").all_inner_texts() == [
            "Overview", "Functions", "Jobs", "Dead letters", "Workers", "Schedules", "Settings",
        ]  # fmt: skip
        lists(tab, "every day at 01:00")
        for action in ("Add", "Run now fixed", "Pause fixed", "Edit fixed", "Delete fixed"):
            assert tab.page.get_by_role("button", name=action).count() == 0
        tab.page.get_by_role("link", name="fixed").first.click()
        tab.sees("Comes from")
        assert tab.page.get_by_role("button", name="Run now").count() == 0
        errors = list(tab.errors)
        tab.open("/playground", "Playground")
        tab.sees("For those who submit jobs")
        tab.open("/audit", "Audit")
        tab.sees("For operators")
        tab.open("/settings", "Settings")
        tab.sees("max_memory")
        assert tab.page.get_by_role("button", name="Drain").count() == 0
        assert tab.errors == errors  # nothing was asked for that is refused
