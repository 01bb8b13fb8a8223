#!/usr/bin/env python3
"""The dashboard: how soon it is shown, what it costs the job server while it is open, and with very much to show.

    .venv-native/bin/python bench/dashboard.py --only tab

``paint`` opens it in Debian's Chromium with nothing cached. ``tab`` is the server's processor time with one tab on the
overview and without, in turn, under the same paced load of 20,000 jobs a second over 100 functions. ``beside`` is the
load of foreground jobs over the Gearman port alone and beside 50 tabs. ``many`` opens each list of a server with
10,000 functions and 1,000,000 jobs.

Tabs are stood in for by clients that ask what the page has asked in the browser, when it asked, over and over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from latency import Peer, packet
from over_http import FOREGROUND, free_port
from playwright.sync_api import Browser, sync_playwright
from server import Server

PAINT_TARGET, TAB_TARGET, BESIDE_TARGET, MANY_TARGET = 1.0, 0.01, 0.9, 2.0
TABS = 50
FUNCTIONS, RATE = 100, 20_000  # of the paced load, jobs a second
MANY_FUNCTIONS, MANY_JOBS = 10_000, 1_000_000
LISTENED = 22.0  # seconds for which the page is listened to: all that it asks again it has asked then
SETTLED = 2.0  # seconds after which it asks no more than what it asks again and again
TICKS = 200  # a second, in which the load submits one job of each function
CAN_DO, SUBMIT_BG, GRAB, JOB_ASSIGN, WORK_COMPLETE = 1, 18, 9, 11, 13
LIVE = "/api/v1/live"
SHOWN = {
    "/dashboard/": ".number .value",
    "/dashboard/functions": "tbody tr",
    "/dashboard/functions?sort=waiting": "tbody tr",
    "/dashboard/jobs": "tbody tr",
    "/dashboard/jobs?function=function-00001": "tbody tr",
    "/dashboard/jobs?state=running": "tbody tr",
}
# When an element first shows a number, and when the largest part of the page was painted, from the page's beginning.
NOTE = """
new PerformanceObserver(list => { for (const entry of list.getEntries()) window.largest = entry.startTime })
    .observe({ type: 'largest-contentful-paint', buffered: true });
const look = () => {
    const found = document.querySelector(%s);
    if (found && /[0-9]/.test(found.textContent)) requestAnimationFrame(() => { window.shown = performance.now() });
    else requestAnimationFrame(look);
};
look();
"""


class Ask(NamedTuple):
    """One request of a page."""

    at: float  # seconds from its beginning
    path: str
    headers: dict[str, str]


class Sight(NamedTuple):
    """How soon a page was there, in seconds."""

    first: float  # first contentful paint
    largest: float  # largest contentful paint
    shown: float  # until what it is there for was shown


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("needs chromium: apt-get install chromium")
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()


def see(browser: Browser, base: str, path: str) -> Sight:
    """Open a page with nothing cached."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = context.new_page()
        page.add_init_script(NOTE % json.dumps(SHOWN[path]))
        page.goto(base + path)
        until = time.monotonic() + 30
        while not page.evaluate("window.shown && window.largest"):
            if time.monotonic() > until:
                raise SystemExit(f"{path} shows no {SHOWN[path]}")
            page.wait_for_timeout(50)
        first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        told = [first, page.evaluate("window.largest"), page.evaluate("window.shown")]
        return Sight(*[milliseconds / 1000 for milliseconds in told])
    finally:
        context.close()


def listen(browser: Browser, base: str) -> list[Ask]:
    """What the overview asks while it is open."""
    asks: list[Ask] = []
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = context.new_page()
        began = time.monotonic()

        def note(request: Any) -> None:
            path = request.url.removeprefix(base)
            asks.append(Ask(time.monotonic() - began, path, request.headers))

        page.on("request", note)
        page.goto(base + "/dashboard/")
        page.wait_for_timeout(LISTENED * 1000)
    finally:
        context.close()
    return asks


# ── tabs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(ask: Ask) -> bytes:
    lines = [f"GET {ask.path} HTTP/1.1", "Host: localhost", *(f"{name}: {text}" for name, text in ask.headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def _tab(http_port: int, asks: list[Ask], wait: float, told: dict[str, int]) -> None:
    """Follow the live stream, and ask the rest over and over; the first time sooner by ``wait`` than the page did."""

    async def follow() -> None:
        stream = next(ask for ask in asks if ask.path == LIVE)
        reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
        writer.write(_request(stream))
        while data := await reader.read(1 << 16):
            told["events"] += data.count(b"event: ")
        raise SystemExit("a live stream has ended")

    async def ask_all() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
        again = [ask for ask in asks if ask.at > SETTLED and ask.path != LIVE]
        loop = asyncio.get_running_loop()
        began = loop.time() - wait - SETTLED
        for turn in itertools.count():
            for ask in again:
                due = began + turn * (LISTENED - SETTLED) + ask.at
                if due < loop.time() - 1:
                    continue
                await asyncio.sleep(due - loop.time())
                writer.write(_request(ask))
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 200 " not in head.partition(b"\r\n")[0]:
                    raise SystemExit(f"{ask.path} was answered {head[:60]!r}")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                told["answers"] += 1

    await asyncio.gather(follow(), ask_all())


def _run_tabs(http_port: int, asks: list[Ask], count: int, end: Event, pipe: Connection) -> None:
    told = {"events": 0, "answers": 0}

    async def run() -> None:
        each = (LISTENED - SETTLED) / count
        tabs = [asyncio.create_task(_tab(http_port, asks, at * each, told)) for at in range(count)]
        while not end.is_set():
            await asyncio.sleep(0.05)
            for tab in tabs:
                if tab.done():
                    tab.result()
        for tab in tabs:
            tab.cancel()

    asyncio.run(run())
    pipe.send(told)


@contextlib.contextmanager
def tabs(http_port: int, asks: list[Ask], count: int) -> Iterator[None]:
    """So many tabs on the overview, that are open already; they must have been told each second."""
    end = multiprocessing.Event()
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_run_tabs, args=(http_port, asks, count, end, other))
    process.start()
    began = time.monotonic()
    try:
        yield
    finally:
        end.set()
        process.join(10)
        process.kill()
    told = pipe.recv() if pipe.poll() else {"events": 0, "answers": 0}
    seconds = time.monotonic() - began
    if told["events"] < 0.7 * count * (seconds - 2) or (seconds > LISTENED / 2 and not told["answers"]):
        raise SystemExit(f"{count} tabs were told {told} in {seconds:.0f} s")


# ── load ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _run_load(port: int, end: Event, done: Any) -> None:
    """Submit and do so many background jobs a second, as many of each function."""
    names = [b"function-%02d" % at for at in range(FUNCTIONS)]
    worker, client = Peer(port), Peer(port)
    worker.send(b"".join(packet(CAN_DO, name) for name in names))
    each = RATE // TICKS
    jobs = b"".join(packet(SUBMIT_BG, names[at % FUNCTIONS], b"", b"x" * 100) for at in range(each))
    grabs = packet(GRAB) * each
    due = time.monotonic()
    while not end.is_set():
        client.send(jobs)
        client.count(each)
        worker.send(grabs)
        handles = _handles(worker.socket, each)
        worker.send(b"".join([packet(WORK_COMPLETE, handle, b"x" * 100) for handle in handles]))
        done.value += each
        due = max(due + 1 / TICKS, time.monotonic() - 1)
        time.sleep(max(due - time.monotonic(), 0))


def _handles(of: socket.socket, wanted: int) -> list[bytes]:
    """Of so many JOB_ASSIGN the handles."""
    handles: list[bytes] = []
    rest = b""
    while len(handles) < wanted:
        data = rest + of.recv(1 << 20)
        at = 0
        while len(data) - at >= 12:
            size = 12 + int.from_bytes(data[at + 8 : at + 12], "big")
            if len(data) - at < size:
                break
            if data[at + 7] == JOB_ASSIGN:
                handles.append(data[at + 12 : data.index(b"\0", at + 12)])
            at += size
        rest = data[at:]
    return handles


@contextlib.contextmanager
def paced_load(port: int) -> Iterator[Any]:
    """The load, whose ``value`` counts its jobs."""
    end = multiprocessing.Event()
    done = multiprocessing.Value("q", 0, lock=False)
    process = multiprocessing.Process(target=_run_load, args=(port, end, done))
    process.start()
    try:
        yield done
    finally:
        end.set()
        process.join(10)
        process.kill()


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────────────────


def tell(name: str, text: str, is_reached: bool | None = None) -> bool:
    """One row; gives whether its target was missed."""
    print(f"{name:10} {text}", {None: "", True: " reached", False: " MISSED"}[is_reached], sep="", flush=True)
    return is_reached is False


def paint(command: str, http_port: int, pairs: int) -> bool:
    base = f"http://127.0.0.1:{http_port}"
    with Server(command) as server, paced_load(server.port), chromium() as browser:
        time.sleep(2)
        sights = [see(browser, base, "/dashboard/") for _ in range(pairs)]
    first, largest, shown = (median(times) for times in zip(*sights, strict=True))
    worst = max(shown for *_, shown in sights)
    text = f"first {first:.2f} s, largest {largest:.2f} s, numbers {shown:.2f} s ({worst:.2f} s at worst)"
    return tell("paint", text, max(first, largest, shown) < PAINT_TARGET)


def tab(command: str, http_port: int, asks: list[Ask], pairs: int, seconds: float) -> bool:
    """Processor time with a tab less that without, by the second; first of a server that has nothing else to do."""
    missed = False
    with Server(command) as server:
        with paced_load(server.port):
            time.sleep(1)
        for is_loaded in (False, True):
            with contextlib.ExitStack() as stack:
                load = stack.enter_context(paced_load(server.port)) if is_loaded else None
                time.sleep(1)
                costs, rates = [], []
                for number in range(pairs):
                    used = {}
                    for is_open in (False, True) if number % 2 == 0 else (True, False):
                        with tabs(http_port, asks, 1) if is_open else contextlib.nullcontext():
                            time.sleep(0.2)
                            before, jobs, began = server.cpu_exactly(), load.value if load else 0, time.monotonic()
                            time.sleep(seconds)
                            took = time.monotonic() - began
                            used[is_open] = (server.cpu_exactly() - before) / took
                            rates.append(((load.value if load else 0) - jobs) / took)
                    costs.append(used[True] - used[False])
                    print(f"  tab: without {used[False]:.2%}, with {used[True]:.2%}", file=sys.stderr, flush=True)
            cost = median(costs)
            under = f"{median(rates):,.0f} jobs/s of {FUNCTIONS} functions" if is_loaded else "no job"
            missed |= tell("tab", f"{cost:.2%} of a core, {under}", cost <= TAB_TARGET)
    return missed


def beside(command: str, http_port: int, asks: list[Ask], load: Path, pairs: int) -> bool:
    def rate(count: int) -> tuple[float, float]:
        """Jobs a second, and jobs a second of the server's processor time."""
        with Server(command) as server, contextlib.ExitStack() as stack:
            with paced_load(server.port):
                time.sleep(0.5)  # there are functions to be told of
            if count:
                stack.enter_context(tabs(http_port, asks, count))
                time.sleep(0.5)
            words = [str(load.resolve()), "--port", str(server.port), *FOREGROUND.split()]
            before = server.cpu_exactly()
            told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            return told["jobs_per_second"], told["jobs"] / (server.cpu_exactly() - before)

    ratios, of_processor = [], []
    for number in range(pairs):
        rates = {count: rate(count) for count in ((0, TABS) if number % 2 == 0 else (TABS, 0))}
        ratios.append(rates[TABS][0] / rates[0][0])
        of_processor.append(rates[TABS][1] / rates[0][1])
        print(f"  beside: alone {rates[0][0]:,.0f}, with {rates[TABS][0]:,.0f}", file=sys.stderr, flush=True)
    ratio = median(ratios)
    text = f"ratio {ratio:.3f} with {TABS} tabs, {median(of_processor):.3f} by processor time"
    return tell("beside", text, ratio >= BESIDE_TARGET)


def many(command: str, http_port: int) -> bool:
    base = f"http://127.0.0.1:{http_port}"
    missed = False
    with Server(command) as server, chromium() as browser:
        peer = Peer(server.port)
        of_each = MANY_JOBS // MANY_FUNCTIONS
        for at in range(MANY_FUNCTIONS):
            peer.fill(packet(SUBMIT_BG, b"function-%05d" % at, b"", b"x" * 20), of_each, of_each)
        worker = Peer(server.port)
        worker.send(packet(CAN_DO, b"function-00000") + packet(GRAB))  # a job runs, and it is the oldest
        worker.count(1)
        time.sleep(2)
        for path in SHOWN:
            shown = median(see(browser, base, path).shown for _ in range(3))
            missed |= tell("many", f"{path} shown after {shown:.2f} s", shown < MANY_TARGET)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the Python that has geartrain installed")
    parser.add_argument("--load", type=Path, default=Path("build/load"), help="the compiled load generator")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs a row (5)")
    parser.add_argument("--seconds", type=float, default=10, help="of each half of a pair of tab (10)")
    parser.add_argument("--only", nargs="+", default=["paint", "tab", "beside", "many"],
                        choices=("paint", "tab", "beside", "many"))  # fmt: skip
    chosen = parser.parse_args()
    port = free_port()
    command = (
        f"{shlex.quote(chosen.python)} -m geartrain serve --store memory: --listen 127.0.0.1 --port {{port}} "
        f"--log-file none --http 127.0.0.1:{port}"
    )
    missed = False
    if "paint" in chosen.only:
        missed |= paint(command, port, chosen.pairs)
    if {"tab", "beside"} & set(chosen.only):
        with Server(command) as server, chromium() as browser:
            with paced_load(server.port):
                time.sleep(0.5)
            asks = listen(browser, f"http://127.0.0.1:{port}")
        for ask in asks:
            if ask.at > SETTLED or ask.path == LIVE:
                tell("asks", f"{ask.at:5.1f} s {ask.path}")
    if "tab" in chosen.only:
        missed |= tab(command, port, asks, chosen.pairs, chosen.seconds)
    if "beside" in chosen.only:
        missed |= beside(command, port, asks, chosen.load, chosen.pairs)
    if "many" in chosen.only:
        missed |= many(command, port)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
