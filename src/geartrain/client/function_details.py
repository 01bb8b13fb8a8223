"""All that a job server tells of one function: its jobs, its policy, and what was counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from geartrain.client.command import read_back
from geartrain.link import Address
from geartrain.wire.text import as_text

_PLACES = ("high", "normal", "low", "blocked", "delayed", "running", "dead", "workers")


@dataclass(frozen=True, slots=True)
class FunctionDetails:
    """One function at one job server.

    ``high``, ``normal`` and ``low`` are the jobs that wait for a worker, ``blocked`` those that a limit on keys keeps
    back. Of the ``workers`` that can do it ``idle`` sleep; ``oldest_waiting`` is how many seconds a job waits at most.
    ``counters`` has what was counted since the job server started, such as ``completed``, ``retried`` or
    ``result_hits``; ``waited`` and ``ran`` are seconds, of all jobs together. Times are also there as quantiles, from
    counts in buckets: ``waiting_p50``, ``running_p95`` or ``total_p99`` are the seconds that so many percent of the
    jobs waited, ran or took from submission to their end at most.
    """

    server: Address
    function: str
    high: int
    normal: int
    low: int
    blocked: int
    delayed: int
    running: int
    dead: int
    workers: int
    idle: int
    oldest_waiting: float
    paused: bool
    policy: str
    counters: dict[str, float]

    @classmethod
    def read(cls, server: Address, rows: Iterable[bytes]) -> FunctionDetails:
        """From the rows of ``show function``; raises ValueError or KeyError."""
        values = dict(as_text(read_back(row)).split("\t", 1) for row in rows)
        function, policy, paused = values.pop("function"), values.pop("policy", ""), values.pop("paused")
        places = {name: int(values.pop(name)) for name in _PLACES}
        idle, oldest = int(values.pop("idle", "0")), float(values.pop("oldest_waiting", "0"))
        counters = {name: float(value) if "." in value else int(value) for name, value in values.items()}
        return cls(
            server=server,
            function=function,
            policy=policy,
            paused=paused == "1",
            counters=counters,
            idle=idle,
            oldest_waiting=oldest,
            **places,
        )
