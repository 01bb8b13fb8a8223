"""Reading what is kept: by the thread that commits, and by one that reads a workload now and then."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

from geartrain.jobserver.records import StoredJob
from geartrain.store.base import StoreDownError, StoreError, Unreadable
from geartrain.store.memcached import reading
from geartrain.store.memcached.cluster import Cluster
from geartrain.store.memcached.log import Kept, Log
from geartrain.store.memcached.names import Names, placed_segment, placed_workload
from geartrain.store.memcached.node import Node, NodeDownError
from geartrain.store.memcached.segment import Segment, parse
from geartrain.store.record import JOBS_AT_ONCE, attach_workloads, changed, portions, unpack

Found = StoredJob | Unreadable


class Contents:
    """The jobs that ``log`` knows, as ``cluster`` has them."""

    def __init__(self, cluster: Cluster, names: Names, log: Log) -> None:
        self._cluster = cluster
        self._names = names
        self._log = log
        self._readers = {node: node.again() for node in cluster.nodes}  # for ``workload``, which asks for no lock

    def close(self) -> None:
        for node in self._readers.values():
            node.close()

    def values(self, wanted: Mapping[str, bytes]) -> dict[str, bytes | ValueError]:
        """Those of the values (key: what it is placed by) that some node has."""
        cluster = self._cluster
        with cluster.lock:
            return reading.values(
                wanted,
                lambda what: cluster.ranked(what, cluster.available()),
                lambda down: cluster.lose(down.node, str(down)),
            )

    def segments(self, kept: Iterable[Kept]) -> Iterator[tuple[Kept, Segment]]:
        """The contents of segments. Raises StoreDownError or StoreError if one can't be had."""
        keys = {self._names.segment(self._cluster.manifest, each.n): each for each in kept}
        found = self.values({key: placed_segment(each.n) for key, each in keys.items()})
        for key, each in keys.items():
            value = found.get(key)
            if value is None:
                self._know_all(())
                value = ValueError("it is on no node any more")
            try:
                if isinstance(value, ValueError):
                    raise value
                yield each, parse(value)
            except ValueError as error:
                raise StoreError(
                    f"the store {self._cluster.shown}: segment {each.n}: {error}: restart the job server to do without"
                ) from error

    def in_order(self, leave_above: int) -> Iterator[Found]:
        """All jobs by their positions; see ``Store.load``."""
        positions, numbers, records = array("Q"), array("Q"), []
        with self._cluster.lock:
            kept = [each for each in self._log.segments if each.live]
        for portion in portions((n, each.size) for n, each in enumerate(kept)):
            for each, segment in self.segments(kept[n] for n in portion):
                for number, record in zip(segment.numbers, segment.records, strict=True):
                    if self._log.home.get(number) is each and number not in self._log.quarantined:
                        if number in self._log.changed:
                            record = changed(record, self._log.changed[number])
                        positions.append(int.from_bytes(record[:8]))
                        numbers.append(number)
                        records.append(record)
        order = sorted(range(len(positions)), key=positions.__getitem__)
        for at in range(0, len(order), JOBS_AT_ONCE):
            jobs = []
            for n in order[at : at + JOBS_AT_ONCE]:
                jobs.append(_unpacked(numbers[n], records[n]))
                records[n] = b""  # the caller has made more of it
            yield from attach_workloads(jobs, leave_above, self._workloads)

    def _workloads(self, numbers: Sequence[int]) -> dict[int, bytes]:
        keys = {self._names.workload(number): number for number in numbers}
        found = self.values({key: placed_workload(number) for key, number in keys.items()})
        if len(found) < len(keys):
            self._know_all(())
        return {keys[key]: value for key, value in found.items() if isinstance(value, bytes)}

    def workload(self, number: int) -> bytes:
        """See ``Store.read``."""
        for _ in range(3):  # it may just be written again elsewhere
            home = self._log.home.get(number)
            if home is None or number in self._log.quarantined:
                raise KeyError(number)
            apart = number in self._log.large
            key = self._names.workload(number) if apart else self._names.segment(self._cluster.manifest, home.n)
            what = placed_workload(number) if apart else placed_segment(home.n)
            failures: list[NodeDownError] = []
            value = reading.values({key: what}, self._ranked_readers, failures.append).get(key)
            if isinstance(value, bytes):
                workload = value if apart else _workload(number, value)
                if workload is not None:
                    return workload
            elif value is None:
                self._know_all(failures)
        raise KeyError(f"{number}: its workload is not there as it was")

    def _ranked_readers(self, what: bytes) -> list[Node]:
        cluster = self._cluster
        return [self._readers[node] for node in cluster.ranked(what, cluster.available())]

    def _know_all(self, failures: Sequence[NodeDownError]) -> None:
        """Raise StoreDownError if what was not found may be on a node that is out or was just emptied."""
        if failures:
            raise StoreDownError(f"the store {self._cluster.shown}: {failures[0].node.name}: {failures[0]}")
        with self._cluster.lock:
            self._cluster.verify()
            if out := self._cluster.out():
                raise StoreDownError(f"the store {self._cluster.shown}: {out[0].name}: {out[0].reason}")


def _unpacked(number: int, record: bytes) -> Found:
    try:
        return unpack(number, record)
    except ValueError as error:
        return Unreadable(number, str(error))


def _workload(number: int, value: bytes) -> bytes | None:
    """The workload of one job of a segment; None if it can't be read, or is not there."""
    try:
        segment = parse(value)
        return unpack(number, segment.records[segment.numbers.index(number)]).workload
    except ValueError:
        return None
