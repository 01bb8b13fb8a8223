"""A start: becoming the owner, and finding out what there is, from the log's first segment to its last."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from geartrain.store.base import StoreDownError, StoreError, Unreadable
from geartrain.store.memcached import reading
from geartrain.store.memcached.cluster import Cluster
from geartrain.store.memcached.log import Log
from geartrain.store.memcached.manifest import VERSION, Manifest, parse
from geartrain.store.memcached.names import PLACED_BEGUN, Names, placed_segment
from geartrain.store.memcached.node import Node, NodeDownError, State
from geartrain.store.memcached.segment import Segment, cut, part_names
from geartrain.store.memcached.segment import parse as parse_segment
from geartrain.store.record import sound_next_number

BYTES_AT_ONCE: Final = 4 << 20
FEWEST_AT_ONCE: Final = 16
MOST_AT_ONCE: Final = 1000


def take_over(cluster: Cluster, names: Names, token: bytes) -> tuple[Log, list[Unreadable]]:
    """Become the owner; what there is, and what can't be read of it.

    Raises StoreDownError if jobs may be on nodes that do not answer, StoreError if what is there is not for us.
    """
    for node in cluster.available():  # from here on, an earlier owner is refused
        node.put({cluster.owner_key: token, names.node: node.name.encode()})
    for node in cluster.available():
        name = node.get([names.node]).get(names.node, b"").decode()
        if name != node.name:
            raise StoreError(f"the store {cluster.shown}: {node.name} and {name} are the same memcached: name it once")
    found, manifests = find_manifest(cluster)
    session = secrets.token_hex(4)
    owner = token.decode()
    if found is None:
        cluster.adopt(Manifest(1, 0, owner, (), ((session, 0),)), {}, token)
        cluster.establish()
        return Log(0, 1), []
    cluster.adopt(replace(found, epoch=found.epoch + 1, owner=owner, version=VERSION), manifests, token)
    recovery = Recovery(cluster, names, found)
    recovery.run()
    log = recovery.log
    # The last segment may be on one node alone, or be written by an owner that does not know yet that it is none.
    # It is kept once more, under a name that only we write to.
    last = max(log.next - 1, log.first)
    sessions = (*[known for known in found.sessions_from(log.first) if known[1] < last], (session, last))
    if recovery.last is not None:
        key = names.segment(replace(found, sessions=sessions), last)
        cluster.keep([(placed_segment(last), cut(key, recovery.last.dump()))])
    cluster.establish(sessions=sessions, first=log.first, next=log.next, next_number=log.next_number)
    recovery.sweep(last)
    cluster.changed.update(node for node in cluster.nodes if node.state is not State.IN)
    return log, recovery.unreadable


class Recovery:
    """The log as the nodes have it.

    ``last``: the last segment, which may be on one node only; ``unreadable``: what is lost; ``ended``: sizes of large
    workloads that nobody needs and may not be deleted yet.
    """

    def __init__(self, cluster: Cluster, names: Names, manifest: Manifest) -> None:
        self._cluster = cluster
        self._names = names
        self._manifest = manifest
        self.log = Log(manifest.first, sound_next_number(manifest.next_number))
        self.last: Segment | None = None
        self.unreadable: list[Unreadable] = []
        self.ended: dict[int, int] = {}

    def run(self) -> None:
        """Read all segments. Raises StoreDownError if one may be on a node that does not answer."""
        n = self._manifest.first
        count = 64
        while True:
            keys = {self._names.segment(self._manifest, m): m for m in range(n, n + count)}
            found = self._values({key: placed_segment(m) for key, m in keys.items()})
            if not found and n >= self._manifest.next:
                break
            for key, m in keys.items():
                if key in found:
                    self._take_in(m, found[key])
            n += count
            sizes = [len(value) for value in found.values() if isinstance(value, bytes)]
            average = sum(sizes) // (len(sizes) or 1)
            count = max(FEWEST_AT_ONCE, min(MOST_AT_ONCE, BYTES_AT_ONCE // (average + 1)))
        self._skip_to(self._manifest.next)
        for number in self.log.large:
            self.ended.pop(number, None)

    def _take_in(self, n: int, value: bytes | ValueError) -> None:
        self._skip_to(n)
        try:
            if isinstance(value, ValueError):
                raise value
            segment = parse_segment(value)
        except ValueError as error:
            self._replace(n, b"" if isinstance(value, ValueError) else value, str(error))
            return
        self.last = segment
        self.ended.update(self.log.append(segment, len(value)))

    def _skip_to(self, n: int) -> None:
        """Segments before the ``n``-th one are not there."""
        while self.log.next < n:
            if out := self._cluster.out():
                raise StoreDownError(
                    f"the store {self._cluster.shown}: jobs may be on {out[0].name} alone, and that is out:"
                    f" {out[0].reason}: start it"
                )
            self._replace(self.log.next, b"", "it is on no node any more; more nodes were lost than there are copies")

    def _replace(self, n: int, value: bytes, reason: str) -> None:
        """Put a segment without jobs in the place of one that can't be read."""
        self.unreadable.append(Unreadable(0, f"segment {n}: {reason}"))
        if value:
            self._cluster.keep([(placed_segment(n), cut(self._names.damaged(n), value))])
        self.last = Segment()
        data = self.last.dump()
        self._cluster.keep([(placed_segment(n), cut(self._names.segment(self._manifest, n), data))])
        self.log.append(self.last, len(data))

    def sweep(self, last: int) -> None:
        """Delete what an earlier owner could not delete any more, or had begun to write.

        The ``last`` segment is kept under another name by now.
        """
        names, manifest = self._names, self._manifest
        segments = {
            names.segment(manifest, n): placed_segment(n) for n in (*range(manifest.swept, manifest.first), last)
        }
        rubbish = set(segments)
        for key, value in self._values(segments).items():
            if isinstance(value, bytes):
                rubbish.update(part_names(key, len(value)))
        for number, size in self.ended.items():
            rubbish.update(names.workload_items(number, size))
        begun = self._values({names.begun: PLACED_BEGUN}).get(names.begun)
        if isinstance(begun, bytes):
            keys = begun.decode().split("\n")
            rubbish.update(key for key in keys if not names.belongs(key, self.log.large, range(last)))
        self._cluster.forget(rubbish)

    def _values(self, wanted: Mapping[str, bytes]) -> dict[str, bytes | ValueError]:
        cluster = self._cluster
        return reading.values(wanted, lambda what: cluster.ranked(what, cluster.available()), self._node_failed)

    def _node_failed(self, down: NodeDownError) -> None:
        raise StoreDownError(f"the store {self._cluster.shown}: {down.node.name}: {down}") from down


def find_manifest(cluster: Cluster) -> tuple[Manifest | None, dict[Node, bytes]]:
    """The manifest that counts, with the latest epoch that was seen, and what each node that it trusts has of it.

    An available node that has no manifest is to be filled, and one that has missed something is stale.
    Raises StoreDownError if jobs may be on nodes that do not answer.
    """
    raws: dict[Node, bytes] = {}
    for node in cluster.available():
        if raw := node.get([cluster.manifest_key]).get(cluster.manifest_key):
            raws[node] = raw
    manifests = {node: parse(raw, cluster.shown) for node, raw in raws.items()}
    ages = {node.name: manifest.age for node, manifest in manifests.items()}
    counting = None
    for manifest in sorted(manifests.values(), key=lambda manifest: manifest.age, reverse=True):
        if all(ages.get(name, manifest.age) >= manifest.age for name in manifest.members):
            counting = manifest
            break
    if counting is None:
        if out := cluster.out():
            raise StoreDownError(
                f"the store {cluster.shown}: all nodes that answer are empty, and {out[0].name} may have jobs, but is"
                f" out: {out[0].reason}: start it"
            )
        return None, {}
    for node in cluster.available():
        if node not in manifests:
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
    latest = max(manifest.epoch for manifest in manifests.values())
    return replace(counting, epoch=latest), {node: raw for node, raw in raws.items() if node.state is State.IN}
