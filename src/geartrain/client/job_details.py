"""All that a job server tells of one job, with the attempts that did not succeed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from geartrain.client.command import read_back
from geartrain.client.submission import JobHandle
from geartrain.link import Address
from geartrain.wire.text import as_text


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """An attempt that did not succeed: when, at which worker, for which reason.

    Times are Unix times. ``data`` is that of the exception, if any, as far as the job server keeps it.
    """

    number: int
    started: float
    ended: float
    reason: str
    worker: str
    data: bytes

    @property
    def text(self) -> str:
        """The ``data`` as text."""
        return as_text(self.data)


@dataclass(frozen=True, slots=True)
class JobDetails:
    """One job. Times are Unix times, ``size`` is that of the workload in bytes; ``None`` is not known, or not the case.

    ``state`` is ``queued``, ``blocked`` (a limit of its function keeps it), ``delayed``, ``running``, ``dead`` or
    ``ended``. ``stored_at`` is when the job server's store had committed it; not known of one that was stored before a
    restart, or very many commits ago. ``attempts`` counts those that did not succeed; ``history`` has the last of them.
    ``reason`` and ``data`` say why a job is dead. Of one that has ended only the result is known, if that is kept: its
    ``outcome`` is ``completed`` or ``failed``.
    """

    handle: JobHandle
    function: str = ""
    unique: str = ""
    state: str = ""
    priority: str = ""
    background: bool = False
    size: int | None = None
    created: float | None = None
    stored_at: float | None = None
    due: float | None = None
    attempts: int = 0
    max_attempts: int | None = None
    clients: int = 0
    worker: str | None = None
    running_since: float | None = None
    died: float | None = None
    reason: str | None = None
    data: bytes | None = None
    outcome: str | None = None
    result_size: int | None = None
    kept_until: float | None = None
    why: str | None = None
    history: tuple[JobAttempt, ...] = ()

    @property
    def text(self) -> str | None:
        """The ``data`` as text."""
        return None if self.data is None else as_text(self.data)

    @classmethod
    def read(cls, handle: bytes, server: Address, rows: Iterable[bytes]) -> JobDetails:
        """From the rows of ``show job``, of which those that are not known here are left out; raises ValueError."""
        values: dict[str, str] = {}
        data: bytes | None = None
        history = []
        for row in rows:
            key, _, value = row.partition(b"\t")
            if key == b"attempt":
                number, started, ended, reason, worker, said = map(read_back, value.split(b"\t"))
                history.append(
                    JobAttempt(int(number), float(started), float(ended), as_text(reason), as_text(worker), said)
                )
            elif key == b"text":
                data = read_back(value)
            else:
                values[as_text(key)] = as_text(read_back(value))

        def number_of(key: str) -> int | None:
            return int(values[key]) if key in values else None

        def time_of(key: str) -> float | None:
            return float(values[key]) if key in values else None

        return cls(
            handle=JobHandle(handle, server),
            function=values.get("function", ""),
            unique=values.get("unique", ""),
            state=values["state"],
            priority=values.get("priority", ""),
            background=values.get("background") == "1",
            size=number_of("size"),
            created=time_of("created"),
            stored_at=time_of("stored_at"),
            due=time_of("due"),
            attempts=number_of("attempts") or 0,
            max_attempts=number_of("max_attempts"),
            clients=number_of("clients") or 0,
            worker=values.get("worker"),
            running_since=time_of("running_since"),
            died=time_of("died"),
            reason=values.get("reason"),
            data=data,
            outcome=values.get("outcome"),
            result_size=number_of("result_size"),
            kept_until=time_of("kept_until"),
            why=values.get("why"),
            history=tuple(history),
        )
