"""The store on a cluster of memcached servers: a log of batches, each on several of them.

memcached keeps values under keys, forgets everything when it is restarted, knows no transactions and has no list of its
keys that could be trusted. So a batch is one value, a *segment*, written to two nodes: it is there whole or not at all.
Segments are numbered, and a start reads them from the first on until there are no more. Larger workloads are values of
their own, written before the segment that names them, and can be left there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.store.base import REBUILD, Abilities, Store, StoreDownError, StoreError, StoreFullError, Unreadable
from geartrain.store.lease import LASTS, LockHolder, claim
from geartrain.store.memcached.cluster import Cluster
from geartrain.store.memcached.contents import Contents
from geartrain.store.memcached.log import MOST_SESSIONS, Log
from geartrain.store.memcached.names import PLACED_BEGUN, Names, placed_segment, placed_workload
from geartrain.store.memcached.node import Node, NodeDownError, NodeFullError, State
from geartrain.store.memcached.recovery import take_over
from geartrain.store.memcached.repair import Repairer
from geartrain.store.memcached.segment import Segment, cut, part_names
from geartrain.store.options import Options
from geartrain.store.record import changed, changed_part, latest, pack

DEFAULT_PORT: Final = 11211
APART_ABOVE: Final = 8192  # bytes of a workload
DEAD_AT_ONCE: Final = 32  # segments that are deleted together, since the manifest is rewritten for it


class MemcachedStore(Store):
    """Jobs in a cluster of memcached servers; see ``Store`` for what it does.

    The URL names them all, ``memcached://a:11211,b:11211``. ``?namespace=name`` (``geartrain`` if not given) begins the
    names of the keys, ``?copies=2`` says on how many nodes each job is, and ``?accept_eviction=yes`` takes servers that
    may throw jobs away.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        options = Options(url)
        self._shown = options.shown
        nodes = _nodes(url, self._shown)
        copies = options.number("copies", 2, 1)
        if copies > len(nodes):
            raise StoreError(
                f"the store {self._shown} names {len(nodes)} memcached, and each job is to be on {copies}: name more,"
                " as in memcached://a:11211,b:11211, or have fewer copies by ?copies=1, with which the restart of a"
                " memcached loses its jobs"
            )
        accept_eviction = options.yes("accept_eviction")
        namespace = options.namespace()
        if options.left:
            raise StoreError(f"the store {self._shown}: the option {next(iter(options.left))} is not known")
        self._names = Names(namespace)
        self._cluster = Cluster(nodes, copies, namespace, accept_eviction, self._shown)
        self._log = Log(0, 1)
        self._contents = Contents(self._cluster, self._names, self._log)
        self._unreadable: list[Unreadable] = []
        self._begun: set[str] = set()  # items that were written for a segment that was not
        self._holder: LockHolder | None = None
        self._repairer: Repairer | None = None
        self.abilities = Abilities(
            "memcached", _survives(len(nodes), copies, accept_eviction), durable=True, shared=True
        )

    # ── opening and closing ─────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        cluster = self._cluster
        try:
            with cluster.lock:
                for node in cluster.nodes:
                    try:
                        cluster.accept(node)
                        node.state = State.IN
                    except NodeDownError as down:
                        node.reason = str(down)
                cluster.check()
                self._holder = LockHolder()
                claim(self._take, self._shown)
                self._log, self._unreadable = take_over(cluster, self._names, self._holder.token)
            self._log.expire(time.time())
            self._contents = Contents(cluster, self._names, self._log)
            self._repairer = Repairer(cluster, self._names, self._log, self._holder)
            self._repairer.start()
        except NodeDownError as down:
            self.close()
            raise StoreDownError(f"the store {self._shown}: {down.node.name}: {down}: open it again") from down
        except NodeFullError as full:
            self.close()
            raise StoreFullError(
                f"the store {self._shown}: {full.node.name}: {full}: give it more memory (-m)"
            ) from full
        except BaseException:
            self.close()
            raise

    def _take(self, gone: bytes) -> bytes:
        """Take the lease on all nodes that are there; see ``lease.claim``."""
        assert self._holder is not None
        key = self._names.lease
        taken: list[Node] = []
        for node in self._cluster.available():
            while not node.add(key, self._holder.lease(), LASTS):
                found, mark = node.gets([key]).get(key, (b"", b""))
                if self._holder.holds(found):
                    break
                if found == gone and found:
                    node.replace(key, self._holder.lease(), mark, LASTS)
                elif found:
                    for each in taken:
                        each.forget([key])
                    return bytes(found)
            taken.append(node)
        return b""

    def close(self) -> None:
        if self._repairer is not None:
            self._repairer.close()
            self._repairer = None
        if self._holder is not None:
            if self._cluster.manifest.owner == self._holder.token.decode():
                with suppress(StoreError):  # then a start looks for itself where the log ends
                    self._cluster.establish(next=self._log.next, next_number=self._log.next_number)
            for node in self._cluster.available():
                with suppress(NodeDownError):
                    if self._holder.holds(node.get([self._names.lease]).get(self._names.lease, b"")):
                        node.forget([self._names.lease])
            self._holder.close()
            self._holder = None
        for node in self._cluster.nodes:
            node.close()
        self._contents.close()

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, leave_above: int) -> Iterator[StoredJob | Unreadable]:
        unreadable, self._unreadable = self._unreadable, []
        yield from unreadable
        for found in self._contents.in_order(leave_above):
            if isinstance(found, Unreadable):
                with suppress(StoreFullError):  # then it is met again at the next start
                    self.quarantine(found.number, found.reason)
            yield found

    def count(self) -> int:
        return len(self._log.home) - len(self._log.quarantined)

    def next_number(self) -> int:
        return self._log.next_number

    def records(self, kind: str = "") -> Iterator[Record]:
        now = time.time()
        for _, entry in self._log.entries.values():
            if (not kind or entry.kind == kind) and (entry.expires == 0 or entry.expires > now):
                yield entry

    def read(self, number: int) -> bytes:
        return self._contents.workload(number)

    def quarantined(self) -> Iterator[Unreadable]:
        for number, reason in sorted(self._log.quarantined.items()):
            yield Unreadable(number, reason.decode())

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, batch: Batch) -> None:
        with self._cluster.lock:
            self._cluster.check_emptied()
            if self._log.lost:
                raise StoreError(
                    f"the store {self._shown} has lost {self._log.lost} jobs, since more nodes were emptied than there"
                    f" are copies: {REBUILD}, or restart the job server to go on without them"
                )
            serves = self._log.serves
            added = [job for job in batch.added if not serves(job.number)]
            new = {job.number for job in added}
            segment = Segment(
                batch.next_number,
                [job.number for job in added],
                [pack(job, job.size > APART_ABOVE) for job in added],
                [
                    (each.number, changed_part(each))
                    for each in batch.changed
                    if serves(each.number) or each.number in new
                ],
                [number for number in batch.removed if serves(number) or number in new],
                entries=latest(batch.records),
            )
            if not (
                added
                or segment.changed
                or segment.removed
                or segment.entries
                or batch.next_number > self._log.next_number
            ):
                self._cluster.verify()
                return
            large = {job.number: job.workload for job in added if job.size > APART_ABOVE and job.workload is not None}
            try:
                self._append(segment, large)
            except StoreFullError:
                if not self._make_room([number for number in segment.removed if serves(number)]):
                    raise
                self._append(segment, large)
            if batch.records and (before := self._sweep_before()):
                self._log.expire(before)
            with suppress(StoreError):  # the batch is kept; a node that failed is found out by the next one
                self._clean()

    def rebuild(self, jobs: Iterable[StoredJob], next_number: int, records: Iterable[Record] = ()) -> int:
        with self._cluster.lock:
            lost, self._log.lost = self._log.lost, 0
        try:
            return super().rebuild(jobs, next_number, records)
        except BaseException:
            self._log.lost += lost
            raise

    def _make_room(self, removed: list[int]) -> bool:
        """A full store may still forget; whether that freed anything."""
        before = len(self._log.segments)
        if removed:
            self._append(Segment(removed=removed))
        self._trim()
        return bool(removed) or len(self._log.segments) < before

    def _append(self, segment: Segment, large: Mapping[int, bytes] = MappingProxyType({})) -> None:
        """Keep a segment, and the workloads that are not in it."""
        names = self._names
        n = self._log.next
        values = [(placed_workload(number), cut(names.workload(number), data)) for number, data in large.items()]
        data = segment.dump()
        key = names.segment(self._cluster.manifest, n)
        values.append((placed_segment(n), cut(key, data)))
        wanted = {each for _, items in values for each in items if each != key}
        self._begun |= wanted
        if self._begun:
            values.insert(0, (PLACED_BEGUN, cut(names.begun, "\n".join(self._begun).encode())))
        self._cluster.keep(values)
        rubbish = self._begun - wanted
        self._begun = set()
        for number, size in self._log.append(segment, len(data)).items():
            rubbish.update(names.workload_items(number, size))
        if rubbish:
            self._cluster.forget(rubbish)

    def _clean(self) -> None:
        """Delete what is dead, and write again what keeps it from being deleted."""
        if self._log.sparse() or len(self._cluster.manifest.sessions) > MOST_SESSIONS:
            self._rewrite()
            self._trim()
        elif sum(1 for _ in zip(self._log.dead(), range(DEAD_AT_ONCE), strict=False)) == DEAD_AT_ONCE:
            self._trim()

    def _rewrite(self) -> None:
        """Have the living jobs of the oldest segments kept once more, in one new segment."""
        numbers, records = [], []
        oldest = set(self._log.oldest())
        for kept, segment in self._contents.segments(each for each in self._log.oldest() if each.live):
            for number, record in zip(segment.numbers, segment.records, strict=True):
                if self._log.home.get(number) is kept:
                    part = self._log.changed.get(number)
                    numbers.append(number)
                    records.append(changed(record, part) if part else record)
        quarantined = [(number, self._log.quarantined[number]) for number in numbers if number in self._log.quarantined]
        entries = {name: entry for name, (kept, entry) in self._log.entries.items() if kept in oldest}
        if numbers or entries:
            self._append(Segment(self._log.next_number, numbers, records, quarantined=quarantined, entries=entries))

    def _trim(self) -> None:
        """Delete the segments at the front that have no living job."""
        dead = list(self._log.dead())
        if not dead:
            return
        cluster = self._cluster
        first = dead[-1].n + 1
        keys = [self._names.segment(cluster.manifest, each.n) for each in dead]
        cluster.establish(
            swept=self._log.first, first=first, next=self._log.next, next_number=self._log.next_number,
            sessions=cluster.manifest.sessions_from(first),
        )  # fmt: skip
        cluster.forget(
            name for key, each in zip(keys, dead, strict=True) for name in (key, *part_names(key, each.size))
        )
        self._log.drop(len(dead))

    def quarantine(self, number: int, reason: str) -> None:
        with self._cluster.lock:
            if self._log.serves(number):
                self._append(Segment(quarantined=[(number, reason.encode())]))


def _nodes(url: str, shown: str) -> list[Node]:
    """The nodes that a URL names."""
    authority = url.partition("://")[2].partition("?")[0].rstrip("/")
    nodes: dict[str, Node] = {}
    for name in authority.split(","):
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:@/\s]+))(?::([0-9]+))?", name)
        if found is None:
            raise StoreError(
                f"the store {shown}: its nodes must be written as memcached://host:11211,host:11211, and one is not"
            )
        host, port = found[1] or found[2], int(found[3] or DEFAULT_PORT)
        full = f"[{host}]:{port}" if found[1] else f"{host}:{port}"
        nodes[full] = Node(host, port, full)
    return list(nodes.values())


def _survives(nodes: int, copies: int, accept_eviction: bool) -> str:
    if copies == 1:
        said = "a crash of the job server; the restart of a memcached loses the jobs it has"
    else:
        said = f"a crash of the job server, and the loss of any {copies - 1} of {nodes} memcached at a time"
        if nodes == copies:
            said += " (until it is back, new jobs have one copy fewer)"
        said += "; more of them at once, or a power cut of all, lose jobs"
    if accept_eviction:
        said += "; a full memcached may throw jobs away"
    return said
