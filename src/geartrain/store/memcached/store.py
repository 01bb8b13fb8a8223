"""The store on a cluster of memcached servers: a log of batches, each on several of them.

memcached keeps values under keys, forgets everything when it is restarted, knows no transactions and has no list of its
keys that could be trusted. So a batch is one value, a *segment*, written to two nodes: it is there whole or not at all.
Segments are numbered, and a start reads them from the first on until there are no more. Larger workloads are values of
their own, written before the segment that names them, and can be left there.
"""

from __future__ import annotations

import logging
import re
import secrets
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from geartrain.jobserver.journal import Batch, StoredJob
from geartrain.store.base import Abilities, Store, StoreDown, StoreError, StoreFull, Unreadable
from geartrain.store.lease import LASTS, Holder, claim
from geartrain.store.memcached import dump, reading
from geartrain.store.memcached.cluster import Cluster
from geartrain.store.memcached.head import Head
from geartrain.store.memcached.log import MOST_SESSIONS, Kept, Log
from geartrain.store.memcached.names import PLACED_BEGUN, Names, placed_segment, placed_workload
from geartrain.store.memcached.node import Node, NodeDown, State
from geartrain.store.memcached.recovery import Recovery, find_head
from geartrain.store.memcached.segment import Segment, cut, part_names
from geartrain.store.memcached.segment import parse as parse_segment
from geartrain.store.memcached.tending import Tender
from geartrain.store.options import Options
from geartrain.store.record import moved, pack, portions, stays, unpack

log = logging.getLogger("geartrain.store")

DEFAULT_PORT: Final = 11211
APART_ABOVE: Final = 8192  # bytes of a workload
DEAD_AT_ONCE: Final = 32  # segments that are deleted together, since the head is rewritten for it
EMPTY: Final = Segment(1, (), ())


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
        self._readers = {node: node.again() for node in nodes}
        self._log = Log(0, 1)
        self._unreadable: list[Unreadable] = []
        self._holder: Holder | None = None
        self._tender: Tender | None = None
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
                    except NodeDown as down:
                        node.reason = str(down)
                cluster.check()
                self._holder = Holder()
                claim(self._take, self._shown)
                self._recover(self._holder)
            self._tender = Tender(cluster, self._names, self._log, self._holder)
            self._tender.start()
        except NodeDown as down:
            self.close()
            raise StoreDown(f"the store {self._shown}: {down.node.name}: {down}: open it again") from down
        except BaseException:
            self.close()
            raise

    def _recover(self, holder: Holder) -> None:
        """Become the owner, and find out what there is."""
        cluster = self._cluster
        for node in cluster.available():
            node.put({cluster.owner_key: holder.token})
        head, heads = find_head(cluster)
        owner = holder.token.decode()
        session = secrets.token_hex(4)
        if head is None:
            cluster.adopt(Head(1, 0, owner, (), ((session, 0),)), {}, holder.token)
            cluster.establish()
            return
        cluster.adopt(replace(head, epoch=head.epoch + 1, owner=owner), heads, holder.token)
        recovery = Recovery(cluster, self._names, head)
        recovery.run()
        self._log = recovery.log
        self._unreadable = recovery.unreadable
        self._put_aside_damaged(recovery, head)
        # The last segment may be on one node alone, or be written by an owner that does not know yet that it is none.
        # It is kept once more, under a name that only we write to.
        last = max(self._log.next - 1, self._log.first)
        sessions = (*[known for known in head.sessions_from(self._log.first) if known[1] < last], (session, last))
        if recovery.last is not None:
            new = cut(self._names.segment(Head(0, 0, "", (), sessions), last), recovery.last.dump())
            cluster.keep([(placed_segment(last), new)])
        cluster.establish(
            sessions=sessions,
            next=self._log.next,
            next_number=self._log.next_number,
            first=self._log.first,
        )
        self._sweep(head, last, recovery)
        cluster.changed.update(node for node in cluster.nodes if node.state is not State.IN)

    def _put_aside_damaged(self, recovery: Recovery, head: Head) -> None:
        for n, value in recovery.damaged.items():
            if value:
                self._cluster.keep([(placed_segment(n), cut(self._names.aside(f"segment.{n}"), value))])
            self._cluster.keep([(placed_segment(n), cut(self._names.segment(head, n), EMPTY.dump()))])

    def _sweep(self, head: Head, last: int, recovery: Recovery) -> None:
        """Delete what an earlier owner could not delete any more, or had begun to write.

        ``head`` is its head, and its ``last`` segment is kept under another name by now.
        """
        names = self._names
        segments = {names.segment(head, n): placed_segment(n) for n in (*range(head.swept, head.first), last)}
        rubbish = set(segments)
        for key, value in self._values(segments).items():
            if isinstance(value, bytes):
                rubbish.update(part_names(key, len(value)))
        for number, size in recovery.ended.items():
            rubbish.update(names.workload_items(number, size))
        begun = self._values({names.begun: PLACED_BEGUN}).get(names.begun)
        if isinstance(begun, bytes):
            rubbish.update(
                key for key in begun.decode().split("\n") if not names.belongs(key, self._log.large, range(last))
            )
        self._cluster.forget(rubbish)

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
        if self._tender is not None:
            self._tender.close()
            self._tender = None
        if self._holder is not None:
            for node in self._cluster.available():
                with suppress(NodeDown):
                    if self._holder.holds(node.get([self._names.lease]).get(self._names.lease, b"")):
                        node.forget([self._names.lease])
            self._holder.close()
            self._holder = None
        for node in (*self._readers, *self._readers.values()):
            node.close()

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, leave_above: int) -> Iterator[StoredJob | Unreadable]:
        unreadable, self._unreadable = self._unreadable, []
        yield from unreadable
        places, numbers, records = array("Q"), array("Q"), []
        with self._cluster.lock:
            kept = [each for each in self._log.segments if each.live]
        for portion in portions((n, each.size) for n, each in enumerate(kept)):
            for each, segment in self._segments([kept[n] for n in portion]):
                for number, record in zip(segment.numbers, segment.records, strict=True):
                    if self._log.home.get(number) is each:
                        if number in self._log.moved:
                            record = moved(record, *self._log.moved[number])
                        places.append(int.from_bytes(record[:8]))
                        numbers.append(number)
                        records.append(record)
        order = sorted(range(len(places)), key=places.__getitem__)
        for at in range(0, len(order), 500):
            jobs = []
            for n in order[at : at + 500]:
                jobs.append(_unpacked(numbers[n], records[n]))
                records[n] = b""
            for found in self._with_workloads(jobs, leave_above):
                if isinstance(found, Unreadable):
                    with suppress(StoreFull):  # then it is met again at the next start
                        self.set_aside(found.number, found.reason)
                yield found

    def _with_workloads(self, jobs: list[StoredJob | Unreadable], leave_above: int) -> Iterator[StoredJob | Unreadable]:
        """The jobs, each with its workload unless that is to stay."""
        wanted = {n: job for n, job in enumerate(jobs) if isinstance(job, StoredJob) and not stays(job, leave_above)}
        for portion in portions((n, wanted[n].size if n in wanted else 0) for n in range(len(jobs))):
            apart = {
                n: self._names.workload(wanted[n].number) for n in portion if n in wanted and not wanted[n].workload
            }
            got = self._values({key: placed_workload(wanted[n].number) for n, key in apart.items() if wanted[n].size})
            if len(got) < sum(1 for n in apart if wanted[n].size):
                self._know_all(())
            for n in portion:
                job = jobs[n]
                if isinstance(job, StoredJob):
                    workload = got.get(apart.get(n, ""), job.workload)
                    job.workload = workload if n in wanted and isinstance(workload, bytes) else None
                    if n in wanted and (job.workload is None or len(job.workload) != job.size):
                        job = Unreadable(job.number, "its workload is not there as it was")
                yield job

    def _segments(self, kept: Sequence[Kept]) -> Iterator[tuple[Kept, Segment]]:
        """The segments, those without anything to read left out."""
        keys = {self._names.segment(self._cluster.head, each.n): each for each in kept}
        found = self._values({key: placed_segment(each.n) for key, each in keys.items()})
        for key, each in keys.items():
            value = found.get(key)
            if value is None:
                self._cluster.verify()  # raises if a node is down that may have it
                raise StoreError(f"the store {self._shown}: segment {each.n} is on no node any more: start again")
            if isinstance(value, ValueError):
                raise StoreError(f"the store {self._shown}: segment {each.n}: {value}: start again")
            yield each, parse_segment(value)

    def _values(self, wanted: dict[str, bytes]) -> dict[str, bytes | ValueError]:
        cluster = self._cluster
        with cluster.lock:
            return reading.values(
                wanted,
                lambda what: cluster.ranked(what, cluster.available()),
                lambda down: cluster.lose(down.node, str(down)),
            )

    def count(self) -> int:
        return len(self._log.home)

    def next_number(self) -> int:
        return self._log.next_number

    def read(self, number: int) -> bytes:
        for _ in range(3):  # it may just be written anew elsewhere
            home = self._log.home.get(number)
            if home is None:
                raise KeyError(number)
            is_large = number in self._log.large
            what = placed_workload(number) if is_large else placed_segment(home.n)
            key = self._names.workload(number) if is_large else self._names.segment(self._cluster.head, home.n)
            failures: list[NodeDown] = []
            value = reading.values({key: what}, self._ranked_readers, failures.append).get(key)
            if isinstance(value, bytes):
                workload = value if is_large else _workload(number, value)
                if workload is not None:
                    return workload
            elif value is None:
                self._know_all(failures)
        raise KeyError(f"{number}: its workload is not there as it was")

    def _ranked_readers(self, what: bytes) -> list[Node]:
        cluster = self._cluster
        return [self._readers[node] for node in cluster.ranked(what, cluster.available())]

    def _know_all(self, failures: Sequence[NodeDown]) -> None:
        """Raise StoreDown if what was not found may be on a node that is out or was just emptied."""
        if failures:
            raise StoreDown(f"the store {self._shown}: {failures[0].node.name}: {failures[0]}")
        with self._cluster.lock:
            self._cluster.verify()
            if out := self._cluster.out():
                raise StoreDown(f"the store {self._shown}: {out[0].name}: {out[0].reason}")

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, batch: Batch) -> None:
        with self._cluster.lock:
            home = self._log.home
            added = [job for job in batch.added if job.number not in home]
            new = {job.number for job in added}
            segment = Segment(
                batch.next_number,
                [job.number for job in added],
                [pack(job, job.size > APART_ABOVE) for job in added],
                [move for move in batch.moved if move[0] in home or move[0] in new],
                [number for number in batch.removed if number in home or number in new],
            )
            if not (added or segment.moved or segment.removed or batch.next_number > self._log.next_number):
                self._cluster.verify()
                return
            large = {job.number: job.workload for job in added if job.size > APART_ABOVE and job.workload is not None}
            try:
                self._append(segment, large)
            except StoreFull:
                if not self._make_room([number for number in segment.removed if number in home]):
                    raise
                self._append(segment, large)
            with suppress(StoreError):  # the batch is kept; a node that failed is found out by the next one
                self._clean()

    def _make_room(self, removed: list[int]) -> bool:
        """A full store may still forget; whether that freed anything."""
        before = len(self._log.segments)
        if removed:
            self._append(Segment(1, (), (), (), removed), {})
        self._trim()
        return bool(removed) or len(self._log.segments) < before

    def _append(self, segment: Segment, large: dict[int, bytes]) -> None:
        names = self._names
        n = self._log.next
        values = [(placed_workload(number), cut(names.workload(number), data)) for number, data in large.items()]
        data = segment.dump()
        key = names.segment(self._cluster.head, n)
        values.append((placed_segment(n), cut(key, data)))
        begun = [each for _, items in values for each in items if each != key]
        if begun:
            values.insert(0, (PLACED_BEGUN, cut(names.begun, "\n".join(begun).encode())))
        self._cluster.keep(values)
        ended = self._log.append(segment, len(data))
        if ended:
            self._cluster.forget(key for number, size in ended.items() for key in names.workload_items(number, size))

    def _clean(self) -> None:
        """Delete what is dead, and write anew what keeps it from being deleted."""
        if self._log.sparse() or len(self._cluster.head.sessions) > MOST_SESSIONS:
            self._rewrite()
            self._trim()
        elif sum(1 for _ in zip(self._log.dead(), range(DEAD_AT_ONCE), strict=False)) == DEAD_AT_ONCE:
            self._trim()

    def _rewrite(self) -> None:
        """Have the living jobs of the oldest segments kept once more, in one new segment."""
        numbers, records = [], []
        for kept, segment in self._segments([each for each in self._log.oldest() if each.live]):
            for number, record in zip(segment.numbers, segment.records, strict=True):
                if self._log.home.get(number) is kept:
                    place = self._log.moved.get(number)
                    numbers.append(number)
                    records.append(moved(record, *place) if place else record)
        self._append(Segment(self._log.next_number, numbers, records), {})

    def _trim(self) -> None:
        """Delete the segments at the front that have no living job."""
        dead = list(self._log.dead())
        if not dead:
            return
        cluster = self._cluster
        first = dead[-1].n + 1
        keys = [self._names.segment(cluster.head, each.n) for each in dead]
        cluster.establish(
            swept=self._log.first, first=first, next=self._log.next, next_number=self._log.next_number,
            sessions=cluster.head.sessions_from(first),
        )  # fmt: skip
        cluster.forget(
            name for key, each in zip(keys, dead, strict=True) for name in (key, *part_names(key, each.size))
        )
        self._log.drop(len(dead))

    def set_aside(self, number: int, reason: str) -> None:
        with self._cluster.lock:
            home = self._log.home.get(number)
            if home is None:
                return
            record = b""
            for _, segment in self._segments([home]):
                record = segment.records[segment.numbers.index(number)]
            key = self._names.aside(number)
            values = [(placed_workload(number), cut(key, reason.encode() + b"\n" + record))]
            if number in self._log.large:
                what, name = placed_workload(number), self._names.workload(number)
                workload = self._values({name: what}).get(name)
                if isinstance(workload, bytes):
                    values.append((what, cut(f"{key}.workload", workload)))
            self._cluster.keep(values)
            self._append(Segment(1, (), (), (), [number]), {})

    def aside(self) -> Iterator[Unreadable]:
        prefix = self._names.aside("").encode()
        numbers: set[int] = set()
        for node in self._cluster.available():
            try:
                found = [key.removeprefix(prefix) for key in dump.keys(node.host, node.port) if key.startswith(prefix)]
            except (OSError, ValueError) as error:
                raise StoreError(f"the store {self._shown}: {node.name}: {error}") from error
            numbers.update(int(key) for key in found if key.isdigit())
        for number in sorted(numbers):
            key = self._names.aside(number)
            value = self._values({key: placed_workload(number)}).get(key)
            reason = value.partition(b"\n")[0].decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            yield Unreadable(number, reason)


def _unpacked(number: int, record: bytes) -> StoredJob | Unreadable:
    try:
        return unpack(number, record)
    except ValueError as error:
        return Unreadable(number, str(error))


def _workload(number: int, value: bytes) -> bytes | None:
    """The workload of one job of a segment; None if it can't be read, or is not there."""
    try:
        segment = parse_segment(value)
        job = unpack(number, segment.records[segment.numbers.index(number)])
    except ValueError:
        return None
    return job.workload


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
