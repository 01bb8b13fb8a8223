"""The store on Redis or Valkey: a hash of records, their order, and the larger workloads apart.

Under ``{namespace}:`` there are

    jobs        hash: number -> record (see ``store.record``), with the workload if that is small
    workloads   hash: number -> workload that is not in the record
    order       sorted set of position and number, all of the same score, so that Redis orders them as bytes
    meta        hash: version of this layout, next_number, commits (how many there were), sizes (of the three above)
    records     hash: kind, NUL and key -> the time when it expires, and the value
    expires     sorted set of the names of records that expire, by that time
    set_aside   hash: "<number> reason", "<number> record", "<number> workload"
    owner       the token of whose jobs they are; lease: that it lives (see ``store.lease``)

A batch is one call of a script that looks at the owner first. It looks at the count of commits too: Redis may
have been emptied, have come back with an older snapshot, or be a replica that had not heard of all when it took over.
Then nothing more is taken until ``rebuild``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from struct import Struct
from typing import Any, Final
from urllib.parse import urlencode

from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.store.base import (
    REBUILD,
    Abilities,
    JobTooLargeError,
    Store,
    StoreError,
    StoreFullError,
    StoreInUseError,
    Unreadable,
)
from geartrain.store.lease import LASTS, RENEWED_EVERY, LockHolder, claim, in_use
from geartrain.store.options import Options, check_port
from geartrain.store.record import (
    JOBS_AT_ONCE,
    attach_workloads,
    changed_part,
    latest,
    log_unreadable_record,
    pack,
    record_of,
    sound_next_number,
    unpack,
)
from geartrain.store.redis.promise import check_eviction, survives
from geartrain.store.redis.server import Server

log = logging.getLogger("geartrain.store")

VERSION: Final = 1
COMMITTED_KEYS: Final = ("owner", "meta", "jobs", "order", "workloads", "records", "expires")
APART_ABOVE: Final = 2048  # bytes of a workload
EXPIRES: Final = Struct(">d")
LARGEST: Final = 512 << 20  # what Redis takes as one value unless it is told otherwise


class RedisStore(Store):
    """Jobs in Redis or Valkey; see ``Store`` for what it does.

    In the URL, ``?namespace=name`` (``geartrain`` if not given) begins the names of its keys, ``?wait=n`` has each
    batch wait until n replicas have it, ``?accept_eviction=yes`` takes a Redis that may throw jobs away, and other
    options go to the library.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        options = Options(url)
        check_port(url)
        self._shown = options.shown
        self._accept_eviction = options.yes("accept_eviction")
        self._replicas = options.number("wait", 0, 0)
        self._namespace = options.namespace()
        self._target = url.partition("?")[0].replace("valkey", "redis", 1) + "?" + urlencode(options.left)
        self.abilities = Abilities("Redis", "a crash of the job server", shared=True, max_workload=LARGEST)
        self._writer = self._server()
        self._reader = self._server()
        self._next_number = 1  # that the store is known to have
        self._commits = 0  # how many the store is known to have had
        self._in_doubt = False  # a commit was sent whose answer has not come
        self._holder: LockHolder | None = None
        self._beating: threading.Thread | None = None
        self._closing = threading.Event()

    def _server(self) -> Server:
        return Server(self._target, self._shown, self._namespace)

    # ── opening and closing ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        version = self._number("version", VERSION, 1)
        if version > VERSION:
            raise StoreError(
                f"the store {self._shown} has version {version}, and this geartrain knows it up to {VERSION}: start"
                " the newer geartrain that has written it, or give this one another namespace"
            )
        if not self._accept_eviction:
            check_eviction(self._writer.redis, self._shown)
        self._holder = LockHolder()
        claim(self._take, self._shown)
        self._accept()
        self._drop_expired()
        self._next_number = self.next_number()
        self.abilities = replace(self.abilities, survives=survives(self._writer.redis) + self._replicated())
        self._beating = threading.Thread(target=self._beat, name="store lease", daemon=True)
        self._beating.start()

    def close(self) -> None:
        self._closing.set()
        if self._beating is not None:
            self._beating.join()
            self._beating = None
        if self._holder is not None:
            with suppress(StoreError):
                self._writer.run("RELEASE", ("owner", "lease"), [self._holder.token])
            self._holder.close()
        self._writer.close()
        self._reader.close()

    @property
    def _mine(self) -> LockHolder:
        assert self._holder is not None, "the store is not open"
        return self._holder

    def _accept(self) -> None:
        """Take what is there for what there must be."""
        keys = ("owner", "meta", "jobs", "order", "workloads")
        self._check_owner(self._writer.run("ACCEPT", keys, [self._mine.token]))
        self._commits = self._count_commits()
        self._in_doubt = False

    def _count_commits(self) -> int:
        return self._number("commits", 0, 0)

    def _number(self, name: str, default: int, least: int) -> int:
        """A number in ``meta``. Raises StoreError if what is there is none as we write them."""
        written = self._writer.ask("HGET", "meta", name)
        if written is None:
            return default
        # The scripts compare them as text, so 01 is none either.
        if len(written) < 20 and written.isdigit() and b"%d" % int(written) == written and int(written) >= least:
            return int(written)
        raise StoreError(
            f"the store {self._shown}: {name} in the hash {{{self._namespace}}}:meta is {written[:40]!r}, which is no"
            " number that geartrain has written: remove that field to begin with what is there, or give another"
            " namespace"
        )

    def _drop_expired(self) -> None:
        now = time.time()
        with suppress(StoreFullError):  # they are not given out in any case
            while self._writer.ask("ZCOUNT", "expires", "-inf", repr(now)):
                self._run(Batch(1), 1, now)

    def _take(self, gone: bytes) -> bytes:
        answer = self._writer.run("TAKE", ("owner", "lease", "meta"), [*self._lease(), gone])
        return b"" if answer == 1 else bytes(answer)

    def _lease(self) -> list[bytes | int]:
        return [self._mine.token, self._mine.lease(), LASTS * 1000]

    def _beat(self) -> None:
        """Renew the lease until the store is closed; it may be ours again after it was taken."""
        server = self._server()
        is_taken = False
        while not self._closing.wait(RENEWED_EVERY):
            try:
                self._check_owner(server.run("RENEW", ("owner", "lease"), self._lease()))
                is_taken = False
            except StoreInUseError as error:
                if not is_taken:
                    log.error("store_taken", extra={"fields": {"reason": str(error)}})
                is_taken = True
            except StoreError as error:
                log.debug("lease_not_renewed", extra={"fields": {"reason": str(error)}})
        server.close()

    def _check_owner(self, answer: Any) -> None:
        """Raise StoreInUseError if a script found another owner, StoreError if what we wrote is gone."""
        if answer in (b"", 0):
            raise StoreError(
                f"the store {self._shown} was emptied, or came back without its latest data: {REBUILD}, or restart the"
                " job server to begin with what is there"
            )
        if answer != 1:
            raise in_use(answer, self._shown)

    def _replicated(self) -> str:
        if not self._replicas:
            return ""
        return f"; {self._replicas} {'replicas have' if self._replicas > 1 else 'replica has'} it in memory too"

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, leave_above: int) -> Iterator[StoredJob | Unreadable]:
        behind = b"-"
        while page := self._writer.ask("ZRANGE", "order", behind, b"+", "BYLEX", "LIMIT", 0, JOBS_AT_ONCE):
            behind = b"(" + page[-1]
            records = self._writer.ask("HMGET", "jobs", *[member[8:] for member in page])
            jobs = [_unpacked(member, record) for member, record in zip(page, records, strict=True)]
            for member, found in zip(page, attach_workloads(jobs, leave_above, self._workloads), strict=True):
                if isinstance(found, Unreadable):
                    with suppress(StoreFullError):  # then it is met again at the next start
                        self._quarantine(found.number, member[8:], found.reason, member[:8])
                yield found

    def _workloads(self, numbers: Sequence[int]) -> Mapping[int, bytes]:
        found = self._writer.ask("HMGET", "workloads", *[number.to_bytes(8) for number in numbers])
        return {number: workload for number, workload in zip(numbers, found, strict=True) if workload is not None}

    def count(self) -> int:
        return int(self._writer.ask("HLEN", "jobs"))

    def next_number(self) -> int:
        written = self._writer.ask("HGET", "meta", "next_number") or b"1"
        return sound_next_number(int(written) if written.isdigit() and len(written) < 20 else 0)

    def records(self, kind: str = "") -> Iterator[Record]:
        cursor, now = b"0", time.time()
        pattern = f"{kind}\0*" if kind else "*"
        while True:
            cursor, page = self._writer.ask("HSCAN", "records", cursor, "MATCH", pattern, "COUNT", JOBS_AT_ONCE)
            for name, value in page.items():
                try:
                    record = _record(name, value)
                except ValueError as error:
                    log_unreadable_record(self, name, error)
                    continue
                if record.expires == 0 or record.expires > now:
                    yield record
            if int(cursor) == 0:
                return

    def read(self, number: int) -> bytes:
        key = number.to_bytes(8)
        record = self._reader.ask("HGET", "jobs", key)
        if record is None:
            raise KeyError(number)
        try:
            job = unpack(number, record)
        except ValueError as error:
            raise KeyError(f"{number}: {error}") from error
        workload = self._reader.ask("HGET", "workloads", key) if job.workload is None else job.workload
        if workload is None or len(workload) != job.size:
            raise KeyError(f"{number}: its workload is not there as it was")
        return bytes(workload)

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, batch: Batch) -> None:
        large = next((job for job in batch.added if job.size > LARGEST), None)
        if large is not None:
            raise JobTooLargeError(
                large.number,
                f"the store {self._shown} takes workloads of up to {LARGEST} bytes, and this one has {large.size}",
            )
        try:
            self._commit(batch)
        except StoreFullError:
            if batch.removed:  # it may still forget
                forgetting = Batch(1)
                forgetting.removed = batch.removed
                with suppress(StoreError):
                    self._commit(forgetting)
            raise

    def _commit(self, batch: Batch) -> None:
        number = max(batch.next_number, self._next_number)
        before = self._sweep_before() if batch.records else 0.0
        self._run(batch, number, before)
        self._next_number = number

    def _run(self, batch: Batch, next_number: int, expired_before: float) -> None:
        # What only removes is not counted: a full Redis takes nothing that counts.
        counts = bool(batch.added or batch.changed or batch.records or next_number > self._next_number)
        # A commit may have been carried out though its answer was lost. If another batch comes next, which may not
        # count, the script would take our own commit for somebody else's. One more is ours; fewer are a loss.
        if self._in_doubt and self._count_commits() == self._commits + 1:
            self._commits += 1
        self._in_doubt = True
        values = self._values(batch, self._commits + counts, next_number, expired_before)
        self._check_owner(self._writer.run("COMMIT", COMMITTED_KEYS, values, self._replicas))
        self._commits += counts
        self._in_doubt = False

    def rebuild(self, jobs: Iterable[StoredJob], next_number: int, records: Iterable[Record] = ()) -> int:
        if self._writer.ask("GET", "owner") is None and (lease := self._take(b"")):
            raise in_use(lease, self._shown)
        self._accept()
        self._next_number = 1  # whatever is there
        return super().rebuild(jobs, next_number, records)

    def _values(self, batch: Batch, commits: int, next_number: int, expired_before: float) -> list[bytes | int]:
        """The values of the script COMMIT."""
        apart: list[bytes] = []
        for job in batch.added:
            if job.size > APART_ABOVE:
                assert job.workload is not None
                apart += (job.number.to_bytes(8), job.workload)
        changed = [value for each in batch.changed for value in (each.number.to_bytes(8), changed_part(each))]
        kept: list[bytes] = []
        gone = []
        for name, each in latest(batch.records).items():
            if each.value is None:
                gone.append(name)
            else:
                kept += (name, EXPIRES.pack(each.expires) + each.value, b"%r" % each.expires if each.expires else b"")
        return [
            self._mine.token,
            self._commits,
            commits,
            next_number if next_number > self._next_number else b"",
            len(batch.added),
            len(apart) // 2,
            len(batch.changed),
            len(batch.removed),
            len(kept) // 3,
            len(gone),
            b"%r" % expired_before if expired_before else b"",
            *[job.number.to_bytes(8) for job in batch.added],
            *[pack(job, job.size > APART_ABOVE) for job in batch.added],
            *apart,
            *changed,
            *[number.to_bytes(8) for number in batch.removed],
            *kept,
            *gone,
        ]

    def quarantine(self, number: int, reason: str) -> None:
        self._quarantine(number, number.to_bytes(8), reason, b"")

    def quarantined(self) -> Iterator[Unreadable]:
        for name in sorted(self._reader.ask("HKEYS", "set_aside")):
            number, _, what = name.partition(b" ")
            if what == b"reason":
                reason = self._reader.ask("HGET", "set_aside", name)
                yield Unreadable(int(number), reason.decode("utf-8", "replace"))

    def _quarantine(self, number: int, key: bytes, reason: str, position: bytes) -> None:
        keys = ("owner", "jobs", "order", "workloads", "set_aside", "meta")
        values = [self._mine.token, key, b"%d" % number, reason.encode(), position]
        self._check_owner(self._reader.run("QUARANTINE", keys, values))


def _record(name: bytes, value: bytes) -> Record:
    """The record of an entry. Raises ValueError if it makes none."""
    kind, _, key = name.partition(b"\0")
    if len(value) < EXPIRES.size:
        raise ValueError(f"its entry has {len(value)} bytes, fewer than any record's")
    return record_of(kind.decode(), key, value[EXPIRES.size :], *EXPIRES.unpack_from(value))


def _unpacked(member: bytes, record: bytes | None) -> StoredJob | Unreadable:
    """The job of a record whose position and number are ``member``."""
    if len(member) != 16:
        return Unreadable(0, f"its place in the order has {len(member)} bytes, and 16 would be right")
    number = int.from_bytes(member[8:])
    if record is None:
        return Unreadable(number, "its record is gone")
    try:
        job = unpack(number, record)
    except ValueError as error:
        return Unreadable(number, str(error))
    if job.position != int.from_bytes(member[:8]):
        return Unreadable(number, "its record has another position than it has in the queue")
    return job
