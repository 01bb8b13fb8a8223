"""The README's examples, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from servers import running_geartrain
from test_docs import Page

PATH = Path(__file__).parents[1] / "README.md"
README = PATH.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_worker_and_the_client_work_together(tmp_path: Path) -> None:
    worker_code, client_code = blocks("python")
    with running_geartrain() as server:
        environment = {**os.environ, "GEARMAN_SERVERS": server.address}
        worker = subprocess.Popen([sys.executable, "-c", worker_code], env=environment)
        try:
            client = subprocess.run(
                [sys.executable, "-c", client_code], env=environment, capture_output=True, text=True, timeout=30
            )
        finally:
            worker.terminate()
            assert worker.wait(10) == 0
    assert client.returncode == 0, client.stderr
    lines = client.stdout.splitlines()
    for result in ("olleh", "retal", "eno", "owt"):
        assert repr(result.encode()) in lines
    assert "StatusEvent(numerator=1, denominator=2)" in lines


def test_the_commands_print_what_it_says(tmp_path: Path) -> None:
    page = Page(PATH, tmp_path)
    with running_geartrain("--job-handle-prefix=H:web1", port=page.port):
        try:
            page.follow()
        finally:
            page.end()


def test_the_configuration_file_is_one() -> None:
    config = pytest.importorskip("geartrain.daemon.config")
    [example] = blocks("toml")
    loaded = config.Config.load(tomllib.loads(example))
    assert (loaded.max_memory, loaded.drain_timeout, loaded.log_format) == (4 * 1024**3, 300.0, "json")


def test_every_option_it_names_is_one() -> None:
    config = pytest.importorskip("geartrain.daemon.config")
    known = {f"--{name.replace('_', '-')}" for name in config.Config.fields()} | {"--check-args"}
    [table] = re.findall(r"^\| options \|.*?\n\n", README, re.DOTALL | re.MULTILINE)
    named = re.findall(r"--[a-z-]+[a-z](?!…)", re.sub(r"--[a-z-]+…", "", table))
    assert len(named) > 15
    assert set(named) <= known
    for stem in re.findall(r"(--[a-z-]+)…", table):
        assert any(option.startswith(stem) for option in known)


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (Path(__file__).parents[1] / target).exists(), target
