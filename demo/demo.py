"""The demo: a job server and two workers count the words of Python's own library. Run it by ``make demo``.

It shows a job server on a free loopback port, foreground jobs whose results are collected as they come, background
jobs that nobody waits for, a shell command as a worker, and the dashboard, in which all of it can be seen. Everything
it starts, it stops; with KEEP=1 not before it is interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from geartrain import AdminClient, Client

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
WORDS_PROGRAM = Path(__file__).with_name("words.py")
WORKERS = ("ada", "bob")
FILES_A_JOB = 25
OFTEN = 50  # times that a word must occur to be sent to the shell command
LONGEST = ["sh", "-c", r'awk "{ print length, \$0 }" | sort -rn | head -n 5']

Found = TypeVar("Found")

console = Console()


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        say("A job server", "on a free port of this machine, and two workers, each a process of its own.")
        address, dashboard = stack.enter_context(job_server(Path(folder, "geartrain.log")))
        for name in WORKERS:
            stack.enter_context(process(name, [sys.executable, str(WORDS_PROGRAM), name], address))
        client = stack.enter_context(Client(address))
        admin = AdminClient(address)
        await_workers(admin, "count_words", len(WORKERS))
        console.print(f"  listening at {address}; workers: {', '.join(WORKERS)}")
        console.print(f"  dashboard: {dashboard}\n", highlight=False)

        files = text_files()
        say("Foreground jobs:", f"count the words of {len(files)} files of {LIBRARY}, {FILES_A_JOB} files a job.")
        counts, shares, seconds = count_words(client, files)
        show_counts(counts, shares, seconds)

        say("Background jobs:", "one for each package, submitted and left alone; the server is asked how far they are.")
        summaries = Path(folder, "summaries")
        summaries.mkdir()
        write_summaries(client, admin, summaries)

        say("A shell command as worker:", f"geartrain work longest_words -- {shlex.join(LONGEST)}")
        command = [sys.executable, "-m", "geartrain", "work", "--quiet", "longest_words", "--", *LONGEST]
        with process("longest_words", command, address):
            await_workers(admin, "longest_words", 1)
            often = [word for word, times in counts.items() if times >= OFTEN]
            longest = client.run("longest_words", "\n".join(often).encode(), timeout=30)
        for line in longest.decode().splitlines():
            length, word = line.split()
            console.print(f"  {length} letters: {word}", highlight=False)
        console.print()
        if os.environ.get("KEEP") == "1":
            say("Still there:", f"the dashboard, {dashboard}; interrupt this (Ctrl-C) when you have seen enough.")
            with contextlib.suppress(KeyboardInterrupt):
                keep_busy(client, files)
        say("Stopping", "the workers and the job server.")
    console.print(f"  All left in good order; the demo took {time.monotonic() - began:.1f} s.\n")


def say(title: str, text: str) -> None:
    console.print(f"[bold]{title}[/bold] {text}", highlight=False)


@contextlib.contextmanager
def process(name: str, command: list[str], address: str = "") -> Iterator[None]:
    """A child that is told to stop at the end, and must leave in good order."""
    # In a session of its own, so that Ctrl-C reaches this program alone, which then stops the others.
    child = subprocess.Popen(
        command, env={**os.environ, "GEARMAN_SERVERS": address}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        child.terminate()
        code = child.wait(30)
        if code:
            sys.exit(f"{name} ended with exit code {code}")


@contextlib.contextmanager
def job_server(log: Path) -> Iterator[tuple[str, str]]:
    """``geartrain serve`` on free ports; gives its address and that of its dashboard, which its log tells."""
    store = log.with_name("queue.sqlite")  # beside the log, and gone with it
    options = ["--listen=127.0.0.1:0", "--http=127.0.0.1:0", f"--store=sqlite:///{store}"]
    options += ["--log-format=json", f"--log-file={log}"]
    with process("the job server", [sys.executable, "-m", "geartrain", "serve", *options]):
        http = wait_for(lambda: address_of("http_listening", log), "a job server that serves HTTP")
        yield wait_for(lambda: address_of("listening", log), "a job server that listens"), f"http://{http}/dashboard/"


def address_of(what: str, log: Path) -> str:
    events = map(json.loads, log.read_text().splitlines() if log.exists() else ())
    return next((event["address"] for event in events if event["event"] == what), "")


def keep_busy(client: Client, files: list[Path]) -> None:
    """Go on with a job now and then, so that there is something to see."""
    while True:
        for at in range(0, len(files), FILES_A_JOB):
            client.submit_background("count_words", "\n".join(map(str, files[at : at + FILES_A_JOB])).encode())
            time.sleep(0.2)


def wait_for(look: Callable[[], Found], what: str) -> Found:
    """What ``look`` finds, as soon as it finds something."""
    deadline = time.monotonic() + 20
    while not (found := look()):
        if time.monotonic() > deadline:
            sys.exit(f"the demo waited 20 s in vain for {what}")
        time.sleep(0.05)
    return found


def await_workers(admin: AdminClient, function: str, number: int) -> None:
    wait_for(
        lambda: any(row.function == function and row.workers == number for row in admin.status()),
        f"{number} workers able to do {function}",
    )


def text_files() -> list[Path]:
    """The text files of Python's standard library, without what was installed beside it."""
    found = (path for suffix in ("py", "txt", "rst") for path in LIBRARY.rglob(f"*.{suffix}"))
    skipped = {"site-packages", "dist-packages"}
    return sorted(path for path in found if skipped.isdisjoint(path.parts) and path.is_file())


def count_words(client: Client, files: list[Path]) -> tuple[Counter[str], Counter[str], float]:
    """The counts of all words, how many files each worker counted, and how long it took."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    shares: Counter[str] = Counter()
    jobs = ["\n".join(map(str, files[at : at + FILES_A_JOB])).encode() for at in range(0, len(files), FILES_A_JOB)]
    with progress() as bar:
        task = bar.add_task("files", total=len(files))
        for result in client.map("count_words", jobs, window=8, ordered=False, timeout=60):
            counted = json.loads(result)
            counts.update(counted["counts"])
            shares[counted["worker"]] += counted["files"]
            bar.update(task, completed=shares.total())
    return counts, shares, time.monotonic() - began


def show_counts(counts: Counter[str], shares: Counter[str], seconds: float) -> None:
    table = Table(title="The most frequent words of four letters and more", title_justify="left")
    table.add_column("word")
    table.add_column("times", justify="right")
    table.add_column("")
    most = counts.most_common(10)
    for word, times in most:
        table.add_row(word, f"{times:,}", "█" * round(30 * times / most[0][1]))
    console.print(table)
    by_worker = ", ".join(f"{name} {files} files" for name, files in sorted(shares.items()))
    console.print(f"  {counts.total():,} words in {seconds:.1f} s: {by_worker}\n", highlight=False)


def write_summaries(client: Client, admin: AdminClient, folder: Path) -> None:
    packages = sorted(path.parent for path in LIBRARY.glob("*/__init__.py"))
    tasks = [json.dumps({"folder": str(package), "file": str(folder / package.name)}).encode() for package in packages]
    handles = list(client.map_background("write_summary", tasks))
    console.print(f"  accepted at once: {len(handles)} jobs, {handles[0]} to {handles[-1]}", highlight=False)
    with progress() as bar:
        task = bar.add_task("packages", total=len(handles))
        left = len(handles)
        while left:
            left = next(row.total for row in admin.status() if row.function == "write_summary")
            bar.update(task, completed=len(handles) - left)
            time.sleep(0.1)
    written = len(list(folder.iterdir()))
    words = [line.split()[1] for line in (folder / "asyncio").read_text().splitlines()]
    console.print(f"  {written} summaries were written; that of asyncio: {', '.join(words[:5])}\n", highlight=False)


def progress() -> Progress:
    columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


if __name__ == "__main__":
    main()
