"""Chromium, driven by Playwright: a page that tells of every error, and keeps pictures of what it shows.

Pictures go to build/screenshots, as NAME-THEME-SIZE.png; axe-core of the dashboard's own packages looks for what some
people could not use.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geartrain.web.pages import FOLDER
from servers import missing, needs

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "build" / "screenshots"
AXE = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
LOOKS = list(itertools.product(("light", "dark"), SIZES))


class Tab:
    """One page. ``errors`` has what its console told of errors."""

    def __init__(self, page: Any, base: str, theme: str, size: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self._base = base
        self._look = f"{theme}-{size}"
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, path: str, heading: str) -> None:
        """Open a path below /dashboard, and wait for its heading and the live connection."""
        self.page.goto(f"{self._base}/dashboard{path}")
        self.page.get_by_role("heading", name=heading, level=1, exact=True).wait_for()
        self.page.get_by_text("Takes jobs").wait_for()

    def log_in(self, path: str, token: str) -> None:
        """Open a path below /dashboard with a token, and wait for the live connection."""
        self.page.goto(f"{self._base}/dashboard{path}")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_text("Takes jobs").wait_for()

    def sees(self, text: str) -> None:
        """Wait until the text is shown."""
        self.page.get_by_text(text).first.wait_for()

    def keep(self, name: str) -> None:
        """Keep a picture of the whole page."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}-{self._look}.png", full_page=True)

    def complaints(self) -> list[str]:
        """What axe-core finds serious."""
        if not AXE.exists():
            missing("needs axe-core: make dashboard")
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]


class Browser:
    """Makes tabs."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextlib.contextmanager
    def tab(self, port: int, theme: str = "light", size: str = "desk") -> Iterator[Tab]:
        """A tab with cookies and a store of its own."""
        width, height = SIZES[size]
        context = self._chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",
            device_scale_factor=1 if size == "desk" else 2,
        )
        try:
            yield Tab(context.new_page(), f"http://127.0.0.1:{port}", theme, size)
        finally:
            context.close()


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Debian's Chromium; without it, or without the dashboard, the test is skipped."""
    program = needs("chromium", "chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    if not (FOLDER / "index.html").exists():
        missing("needs the dashboard: make dashboard")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        chromium = driver.chromium.launch(executable_path=program, args=options)
        try:
            yield Browser(chromium)
        finally:
            chromium.close()
