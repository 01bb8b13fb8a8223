"""Jobs and records as lines of JSON, to be kept elsewhere, looked at, or taken in by another store.

The first line says what it is; each other line is a job, or a record after them. Names are text where they are UTF-8,
else ``{"base64": ...}``; workloads and values always are base64. Times are Unix times. A job that is
a dead letter has ``dead`` besides, since the record that says so comes later.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from geartrain.jobserver.records import Record, StoredJob
from geartrain.store.base import StoreError, Unreadable
from geartrain.store.record import flaw, record_of, sound_next_number

VERSION: Final = 2  # 1 had no records, and called a position a place
# What comes of lines that are something else; a deep nesting ends in a RecursionError.
_SENSELESS: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
NUMBERS: Final = {"number": int, "position": int, "priority": int, "attempts": int, "due": float, "created": float}


def head(jobs: int, next_number: int) -> bytes:
    """The first line."""
    return _line({"geartrain": "jobs", "version": VERSION, "jobs": jobs, "next_number": next_number})


def line(job: StoredJob, is_dead: bool = False) -> bytes:
    """The line of a job that has its workload."""
    assert job.workload is not None
    return _line(
        {
            "number": job.number,
            "function": _written(job.function),
            "unique": _written(job.unique),
            "priority": job.priority,
            "due": job.due,
            "created": job.created,
            "attempts": job.attempts,
            "reducer": _written(job.reducer),
            "position": job.position,
            "workload": base64.b64encode(job.workload).decode(),
            **({"dead": True} if is_dead else {}),
        }
    )


def record_line(record: Record) -> bytes:
    """The line of a record."""
    assert record.value is not None
    value = base64.b64encode(record.value).decode()
    return _line({"record": record.kind, "key": _written(record.key), "expires": record.expires, "value": value})


class Export:
    """What ``head`` and the lines have made: ``jobs`` (how many) and ``next_number``, and what it holds.

    ``dead`` are the numbers of the dead letters among the jobs that have come so far.
    Raises StoreError if ``file`` is something else. ``shown`` is its name.
    """

    def __init__(self, file: BinaryIO, shown: str) -> None:
        self.dead: set[int] = set()
        self._file = file
        try:
            found = json.loads(file.readline())
            kind, version = found["geartrain"], found["version"]
            self.jobs, self.next_number = int(found["jobs"]), sound_next_number(found["next_number"])
        except _SENSELESS:
            kind, version = "", 0
        if kind != "jobs" or type(version) is not int:
            raise StoreError(f"{shown} is no export of a store: make one by `geartrain store export`")
        if version > VERSION:
            raise StoreError(f"{shown} has version {version}, and this geartrain reads them up to {VERSION}")

    def __iter__(self) -> Iterator[StoredJob | Record | Unreadable]:
        for number, written in enumerate(self._file, 2):
            try:
                found = json.loads(written)
                job = _read(found)
                if isinstance(job, StoredJob) and found.get("dead") is True:
                    self.dead.add(job.number)
                yield job
            except _SENSELESS as error:
                yield Unreadable(0, f"line {number}: {str(error) or type(error).__name__}")


def _read(found: dict[str, Any]) -> StoredJob | Record:
    if "record" in found:
        value = base64.b64decode(found["value"], validate=True)
        return record_of(found["record"], _bytes(found["key"]), value, _number(found, "expires", float))
    if "place" in found:
        found["position"] = found["place"]
    numbers = {name: _number(found, name, kind) for name, kind in NUMBERS.items()}
    workload = base64.b64decode(found["workload"], validate=True)
    if wrong := flaw(size=len(workload), **numbers):
        raise ValueError(wrong)
    return StoredJob(
        function=_bytes(found["function"]),
        unique=_bytes(found["unique"]),
        workload=workload,
        size=len(workload),
        reducer=_bytes(found["reducer"]),
        **numbers,
    )


def _number(found: dict[str, Any], name: str, kind: type[int] | type[float]) -> Any:
    value = found[name]
    if type(value) not in (int, kind):
        raise ValueError(f"its {name} is {value!r:.60}, where a number was expected")
    return kind(value)


def _written(name: bytes) -> object:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(name).decode()}


def _bytes(written: Any) -> bytes:
    if isinstance(written, str):
        return written.encode()
    try:
        return base64.b64decode(written["base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{written!r:.60} is no base64") from error


def _line(found: dict[str, Any]) -> bytes:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
