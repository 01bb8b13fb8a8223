"""What a start finds in the cluster: the head that counts, and the segments from its first one to the last."""

from __future__ import annotations

from dataclasses import replace

from geartrain.store.base import StoreDown, StoreError, Unreadable
from geartrain.store.memcached import reading
from geartrain.store.memcached.cluster import Cluster
from geartrain.store.memcached.head import Head, parse
from geartrain.store.memcached.log import Log
from geartrain.store.memcached.names import Names, placed_segment
from geartrain.store.memcached.node import Node, NodeDown, State
from geartrain.store.memcached.segment import Segment
from geartrain.store.memcached.segment import parse as parse_segment

BYTES_AT_ONCE = 4 << 20
FEWEST_AT_ONCE, MOST_AT_ONCE = 16, 1000


class Recovery:
    """The log as the nodes have it.

    ``last``: the last segment's value, which may be on one node only; ``damaged``: segments (n: value, None if it is on
    no node) that can't be read; ``ended``: sizes of large workloads that nobody needs and may not be deleted yet.
    """

    def __init__(self, cluster: Cluster, names: Names, head: Head) -> None:
        self._cluster = cluster
        self._names = names
        self._head = head
        self.log = Log(head.first, head.next_number)
        self.last: Segment | None = None
        self.damaged: dict[int, bytes | None] = {}
        self.unreadable: list[Unreadable] = []
        self.ended: dict[int, int] = {}

    def run(self) -> None:
        """Read all segments. Raises StoreDown if one may be on a node that does not answer."""
        n = self._head.first
        count = 64
        while True:
            keys = {self._names.segment(self._head, m): m for m in range(n, n + count)}
            found = reading.values({key: placed_segment(m) for key, m in keys.items()}, self._ranked, self._node_failed)
            if not found and n >= self._head.next:
                break
            for key, m in keys.items():
                if key in found:
                    self._take_in(m, found[key])
            n += count
            sizes = [len(value) for value in found.values() if isinstance(value, bytes)]
            average = sum(sizes) // (len(sizes) or 1)
            count = max(FEWEST_AT_ONCE, min(MOST_AT_ONCE, BYTES_AT_ONCE // (average + 1)))
        self._skip_to(self._head.next)
        for number in self.log.large:
            self.ended.pop(number, None)

    def _take_in(self, n: int, value: bytes | ValueError) -> None:
        self._skip_to(n)
        try:
            if isinstance(value, ValueError):
                raise value
            segment = parse_segment(value)
        except ValueError as error:
            self._damage(n, b"" if isinstance(value, ValueError) else value, str(error))
            return
        self.last = segment
        self.ended.update(self.log.append(segment, len(value)))

    def _skip_to(self, n: int) -> None:
        """Segments before the ``n``-th one are not there."""
        while self.log.next < n:
            if out := self._cluster.out():
                raise StoreDown(
                    f"the store {self._cluster.shown}: jobs may be on {out[0].name} alone, and that is out:"
                    f" {out[0].reason}: start it"
                )
            self._damage(self.log.next, None, "it is on no node any more; more nodes were lost than there are copies")

    def _damage(self, n: int, value: bytes | None, reason: str) -> None:
        self.damaged[n] = value
        self.unreadable.append(Unreadable(0, f"segment {n}: {reason}"))
        self.last = Segment(1, (), ())
        self.log.append(self.last, 0)

    def _ranked(self, what: bytes) -> list[Node]:
        return self._cluster.ranked(what, self._cluster.available())

    def _node_failed(self, down: NodeDown) -> None:
        raise StoreDown(f"the store {self._cluster.shown}: {down.node.name}: {down}") from down


def find_head(cluster: Cluster) -> tuple[Head | None, dict[Node, bytes]]:
    """The head that counts, with the latest epoch that was seen, and what each node that it trusts has in its place.

    An available node that has no head is to be filled, and one that has missed something is stale.
    Raises StoreDown if jobs may be on nodes that do not answer.
    """
    raws: dict[Node, bytes] = {}
    for node in cluster.available():
        if raw := node.get([cluster.head_key]).get(cluster.head_key):
            raws[node] = raw
    heads = {node: parse(raw, cluster.shown) for node, raw in raws.items()}
    ages = {node.name: head.age for node, head in heads.items()}
    counting = None
    for head in sorted(heads.values(), key=lambda head: head.age, reverse=True):
        if all(ages.get(name, head.age) >= head.age for name in head.members):
            counting = head
            break
    if counting is None:
        if out := cluster.out():
            raise StoreDown(
                f"the store {cluster.shown}: all nodes that answer are empty, and {out[0].name} may have jobs, but is"
                f" out: {out[0].reason}: start it"
            )
        return None, {}
    for node in cluster.available():
        if node not in heads:
            node.state = State.FILLING
        elif node.name not in counting.members:
            node.state = State.STALE
    known = {node.name for node in cluster.nodes}
    strangers = [name for name in counting.members if name not in known]
    if len(strangers) >= cluster.copies:
        raise StoreError(
            f"the store {cluster.shown}: jobs are on {', '.join(strangers)}, not in the URL: name at least all but"
            f" {cluster.copies - 1} of them, and leave out others when all is copied"
        )
    latest = max(head.epoch for head in heads.values())
    return replace(counting, epoch=latest), {node: raw for node, raw in raws.items() if node.state is State.IN}
