"""The history of a real job server, asked over HTTP: what it tells, what it refuses, and that it outlives a restart."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("httptools")

from http_client import Http

from geartrain.web.series import NAMES
from servers import RunningServer, running_geartrain, wait_until
from wire_caller import Caller

HTTP = "--http=127.0.0.1:0"


def told(server: RunningServer, query: str = "") -> dict[str, Any]:
    answer = Http(server.http_port).ask("GET", f"/api/v1/history{query}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    assert all(len(values) == len(found["times"]) for values in found["series"].values())
    return found


def total(server: RunningServer, name: str, query: str = "?points=1000") -> int:
    return sum(value or 0 for value in told(server, query)["series"][name])


def test_what_has_happened_is_told_a_second_later() -> None:
    with running_geartrain(HTTP) as server, Caller(server) as peer:
        began = time.time()
        for _ in range(3):
            peer.submit(b"f/1", b"x")
        peer.submit(b"\xff", b"x")
        peer.can_do(b"f/1")
        for _ in range(2):
            peer.complete(peer.await_job())
        wait_until(lambda: total(server, "submitted") == 4, "all submissions are told")
        of_one = f"?points=1000&function={quote('f/1', safe='')}"
        wait_until(lambda: total(server, "completed", of_one) == 2, "the results are told")
        found = told(server, of_one)
        assert found["function"] == "f/1"
        assert not found["folded"]
        assert found["step"] == 1
        assert sorted(found["series"]) == sorted(NAMES)
        at = [time for time, value in zip(found["times"], found["series"]["submitted"], strict=True) if value]
        assert all(began - 2 < second < time.time() for second in at)
        assert total(server, "submitted", of_one) == 3
        assert found["series"]["workers"][-1] == 1
        assert any(value is not None for value in found["series"]["waiting_time_p99"])
        wait_until(lambda: total(server, "submitted", "?function=%5Cxff") == 1, "a wider column ends later")
        some = told(server, "?span=6h&series=submitted,failed&series=dead&points=10")
        assert sorted(some["series"]) == ["dead", "failed", "submitted"]
        assert some["step"] == 2160


def is_told(server: RunningServer, query: str) -> bool:
    return total(server, "submitted", query) == 1


def test_an_answer_that_has_been_told_before_goes_on() -> None:
    with running_geartrain(HTTP) as server, Caller(server) as peer:
        for query in ("?points=180", "?points=900", "?points=180&series=submitted"):
            assert total(server, "submitted", query) == 0
        peer.submit(b"f", b"x")
        assert sorted(told(server, "?points=180&series=dead")["series"]) == ["dead"]
        assert told(server, "?points=180")["step"] == 5
        for query in ("?points=180", "?points=900", "?points=180&series=submitted"):
            wait_until(partial(is_told, server, query), "the interval has ended")
        found = told(server, "?points=180")
        assert found["times"][-1] + 3 * found["step"] > time.time()


def test_a_heat_map_of_running_times() -> None:
    with running_geartrain(HTTP) as server, Caller(server) as peer:
        peer.can_do(b"f/1")
        for _ in range(3):
            peer.submit(b"f/1", b"x")
            peer.complete(peer.await_job())
        peer.fence()

        def heat() -> dict[str, Any]:
            query = f"?points=1000&function={quote('f/1', safe='')}"
            answer = Http(server.http_port).ask("GET", f"/api/v1/history/heat{query}")
            assert answer.status == 200, answer.body
            found: dict[str, Any] = answer.json
            return found

        wait_until(lambda: sum(sum(counts or ()) for counts in heat()["counts"]) == 3, "all runs are told")
        found = heat()
        assert (found["function"], found["folded"], found["step"]) == ("f/1", False, 1)
        assert len(found["counts"]) == len(found["times"])
        assert {len(counts) for counts in found["counts"] if counts is not None} == {len(found["bounds"]) + 1}


def test_several_functions_are_told_in_one_answer() -> None:
    with running_geartrain(HTTP) as server, Caller(server) as peer:
        peer.submit(b"f,1", b"x")
        for _ in range(2):
            peer.submit(b"g&", b"x")

        def ask(*names: str, more: str = "") -> dict[str, Any]:
            query = "&".join(f"function={quote(name, safe='')}" for name in names)
            answer = Http(server.http_port).ask("GET", f"/api/v1/history/functions?{query}{more}")
            assert answer.status == 200, answer.body
            found: dict[str, Any] = answer.json
            return found

        def totals() -> dict[str, int]:
            found = ask("g&", "nobody", "f,1", "g&", more="&series=submitted&points=100")
            return {
                each["function"]: sum(value or 0 for value in each["series"]["submitted"])
                for each in found["functions"]
            }

        wait_until(lambda: totals() == {"g&": 2, "f,1": 1}, "the submissions are told")
        found = ask("f,1", more="&series=submitted,oldest&points=10")
        assert found["step"] == 90
        (of_f,) = found["functions"]
        assert of_f["folded"] is False
        assert sorted(of_f["series"]) == ["oldest", "submitted"]
        assert all(len(values) == len(found["times"]) for values in of_f["series"].values())
        assert ask("nobody")["functions"] == []
        assert ask()["functions"] == []
        for query, where in (("?function=" + "&function=".join("f" * 51), "function"),
                             ("?function=f&points=101", "points"), ("?function=f&series=what", "series")):  # fmt: skip
            answer = Http(server.http_port).ask("GET", f"/api/v1/history/functions{query}")
            assert answer.status == 422
            assert where in answer.json["detail"]


@pytest.mark.parametrize("path", ["/history", "/history/heat"])
@pytest.mark.parametrize(
    ("query", "status", "slug"),
    [
        ("?function=nobody", 404, "unknown-function"),
        ("?series=submitted,sumbitted", 422, "invalid"),
        ("?span=1y", 422, "invalid"),
        ("?points=0", 422, "invalid"),
        ("?points=1001", 422, "invalid"),
    ],
)
def test_what_can_not_be_told_is_refused_with_a_word(path: str, query: str, status: int, slug: str) -> None:
    with running_geartrain(HTTP) as server:
        answer = Http(server.http_port).ask("GET", f"/api/v1{path}{query}")
        assert answer.status == status
        assert answer.json["type"].endswith(f"#{slug}")


def test_it_takes_the_right_to_read(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    file = tmp_path / "geartrain.toml"
    file.write_text(f'[tokens.client]\ndigest = "sha256:{digest}"\nroles = ["submit"]\n')
    with running_geartrain(HTTP, f"--config={file}") as server:
        http = Http(server.http_port)
        assert http.ask("GET", "/api/v1/history").status == 401
        answer = http.ask("GET", "/api/v1/history", headers={"Authorization": "Bearer secret"})
        assert answer.status == 403


def test_it_outlives_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jobs.sqlite"
    with running_geartrain(HTTP, store=store) as server, Caller(server) as peer:
        for _ in range(5):
            peer.submit(b"f", b"x")
        wait_until(lambda: total(server, "submitted", "?function=f") == 5, "they are told")
        peer.submit(b"f", b"x")  # of the second that has not ended
    for _ in range(2):
        with running_geartrain(HTTP, store=store) as server:
            server.ask("version")
            wait_until(lambda: total(server, "submitted", "?function=f&points=1000") == 6, "they are told again")
            wait_until(lambda: told(server)["series"]["waiting"][-1] == 6, "and so is that they wait")
            assert "history" not in server.log.read_text()
