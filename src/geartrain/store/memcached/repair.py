"""The thread that looks after the nodes: it renews the lease, takes back nodes that were lost, and fills them.

A node that comes back empty is filled. One that comes back with something, after a broken network, has missed changes:
what it has is deleted first, as far as the manifest that it has tells. If a lost node stays away and there are enough
others, what it had is copied to those. Copying is done in small steps, each with the cluster's lock, so that commits
go on between them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Set
from contextlib import suppress
from typing import Final

from geartrain.store.base import StoreError, StoreInUseError
from geartrain.store.lease import LASTS, RENEWED_EVERY, LockHolder
from geartrain.store.memcached import reading
from geartrain.store.memcached.cluster import FIRST_PAUSE, LONGEST_PAUSE, Cluster
from geartrain.store.memcached.log import Log
from geartrain.store.memcached.manifest import Manifest, parse
from geartrain.store.memcached.names import Names, placed_segment, placed_workload
from geartrain.store.memcached.node import Node, NodeDownError, NodeFullError, State
from geartrain.store.memcached.segment import Segment, cut, part_names
from geartrain.store.memcached.segment import parse as parse_segment
from geartrain.store.record import apart_size

log = logging.getLogger("geartrain.store")

GRACE: Final = 5.0  # seconds that a lost node may take to come back before its share is copied to others
STEP_BYTES: Final = 1 << 20
STEP_VALUES: Final = 200


class Repairer:
    """Tends ``cluster``, whose ``log`` says what there is to keep, for ``holder``."""

    def __init__(self, cluster: Cluster, names: Names, kept: Log, holder: LockHolder) -> None:
        self._cluster = cluster
        self._names = names
        self._log = kept
        self._holder = holder
        self._again_at: dict[Node, float] = {}
        self._pause: dict[Node, float] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="store nodes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._cluster.woken.set()
        self._thread.join()

    def _run(self) -> None:
        renew_at = time.monotonic() + RENEWED_EVERY
        while not self._closing:
            now = time.monotonic()
            try:
                if now >= renew_at:
                    renew_at = now + RENEWED_EVERY
                    self._renew()
                for node in self._away():
                    if now >= self._again_at.get(node, 0.0):
                        self._try(node)
                if self._cluster.changed:
                    self._make_whole()
            except StoreInUseError as error:
                log.error("store_taken", extra={"fields": {"reason": str(error)}})
                return
            except StoreError as error:
                log.debug("store_not_repaired", extra={"fields": {"reason": str(error)}})
            except Exception:
                log.exception("store_not_repaired")
            next_at = min([renew_at, *(self._again_at.get(node, 0.0) for node in self._away())])
            if self._cluster.changed:
                next_at = min(next_at, time.monotonic() + FIRST_PAUSE)
            self._cluster.woken.wait(max(next_at - time.monotonic(), 0.0))
            self._cluster.woken.clear()

    def _away(self) -> list[Node]:
        return [node for node in self._cluster.nodes if node.state in (State.OUT, State.STALE)]

    def _renew(self) -> None:
        with self._cluster.lock:
            self._cluster.verify()
            for node in self._cluster.available():
                with suppress(NodeDownError, NodeFullError):  # found out by the next commit
                    node.put({self._names.lease: self._holder.lease()}, LASTS)

    # ── nodes that come back ────────────────────────────────────────────────────────────────────────────────────

    def _try(self, node: Node) -> None:
        """Take a node back if it answers; nobody else uses it meanwhile."""
        cluster = self._cluster
        try:
            cluster.accept(node)
            if raw := node.get([cluster.manifest_key]).get(cluster.manifest_key):
                manifest = parse(raw, cluster.shown)
                if manifest.epoch > cluster.manifest.epoch:
                    raise NodeDownError(node, "it belongs to a later job server")
                if manifest.epoch == cluster.manifest.epoch and self._missed_nothing(node, raw):
                    return
                node.state = State.STALE
                self._purge(node, manifest)
            with cluster.lock:
                node.put({cluster.owner_key: cluster.token})
                node.put({self._names.lease: self._holder.lease()}, LASTS)
                node.state = State.FILLING
                node.reason = ""
                cluster.changed.add(node)
                cluster.emptied.add(node)
                self._came_back(node)
        except (NodeDownError, NodeFullError, StoreError) as error:
            node.state = State.OUT
            node.reason = str(error)
            node.close()
            pause = self._pause[node] = min(self._pause.get(node, FIRST_PAUSE / 2) * 2, LONGEST_PAUSE)
            self._again_at[node] = time.monotonic() + pause

    def _missed_nothing(self, node: Node, raw: bytes) -> bool:
        """Whether nothing was acknowledged since the node was trusted; then it is again."""
        with self._cluster.lock:
            if node.name not in self._cluster.manifest.members:
                return False
            self._cluster.trust(node, raw)
            self._cluster.changed.discard(node)
            self._came_back(node)
            return True

    def _came_back(self, node: Node) -> None:
        self._pause.pop(node, None)
        log.info("store_node_back", extra={"fields": {"node": node.name, "state": node.state.value}})

    def _purge(self, node: Node, manifest: Manifest) -> None:
        """Delete what the node has from before it was lost, the manifest last."""
        n = manifest.swept
        end = self._log.next
        while n < end and not self._closing:
            keys = [self._names.segment(manifest, m) for m in range(n, min(n + STEP_VALUES, end))]
            rubbish = list(keys)
            found = reading.values(dict.fromkeys(keys, b""), lambda _: [node], _raise)
            for key, value in found.items():
                if isinstance(value, bytes):
                    rubbish += part_names(key, len(value))
                    with suppress(ValueError):
                        rubbish += self._workloads(parse_segment(value))
            node.forget(rubbish)
            n += STEP_VALUES
        node.forget([self._cluster.manifest_key])
        if node.get([self._cluster.manifest_key]):
            raise NodeDownError(node, "it does not forget")

    def _workloads(self, segment: Segment) -> Iterator[str]:
        for number, record in zip(segment.numbers, segment.records, strict=True):
            if size := apart_size(record):
                yield from self._names.workload_items(number, size)

    # ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_whole(self) -> None:
        """Give every value all its copies, as far as there are nodes, and trust those that were filled."""
        cluster = self._cluster
        with cluster.lock:
            cluster.check()
            lost = [node for node in cluster.changed if node.state is State.OUT]
            filling = [node for node in cluster.available() if node.state is State.FILLING]
            if not filling:
                if len(cluster.available()) < cluster.copies:
                    return  # there is nowhere to copy to until a node comes back
                if any(time.monotonic() < cluster.lost_at.get(node, 0.0) + GRACE for node in lost):
                    return
            changed = set(cluster.changed)
            before = [node.state for node in cluster.nodes]
            shares = [*self._log_shares()]
        for step in _steps(shares):
            with cluster.lock:
                if self._closing or before != [node.state for node in cluster.nodes]:
                    return  # begin again with the nodes there are now
                try:
                    self._copy(step, changed)
                except NodeDownError as down:
                    cluster.lose(down.node, str(down))
                    return
                except NodeFullError as full:
                    self._again_at[full.node] = time.monotonic() + 10 * LONGEST_PAUSE
                    cluster.lose(full.node, f"it has no room for its share: {full}")
                    return
        with cluster.lock:
            if before != [node.state for node in cluster.nodes]:
                return
            for node in filling:
                node.state = State.IN
            if filling:
                cluster.establish()
            cluster.changed -= changed
            cluster.emptied -= changed
        log.info("store_whole", extra={"fields": {"nodes": [node.name for node in cluster.available()]}})

    def _copy(self, step: list[Share], changed: set[Node]) -> None:
        """Copy to each home what it does not have of its share."""
        cluster = self._cluster
        available = cluster.available()
        at_times = available + [node for node in changed if node.state is State.OUT]
        wanted: dict[Node, list[str]] = {}
        placed: dict[str, bytes] = {}
        for is_segment, number, size in step:
            if number < self._log.first if is_segment else number not in self._log.large:
                continue  # it has ended meanwhile
            what = placed_segment(number) if is_segment else placed_workload(number)
            if len(changed) == 1 and not changed & set(cluster.ranked(what, at_times)[: cluster.copies]):
                continue
            key = self._names.segment(cluster.manifest, number) if is_segment else self._names.workload(number)
            for name in (*part_names(key, size), key):
                placed[name] = what
                for node in cluster.homes(what):
                    wanted.setdefault(node, []).append(name)
        have = {node: node.get(keys) for node, keys in wanted.items()}
        known = {key: value for found in have.values() for key, value in found.items()}
        known |= reading.items(
            {key: what for key, what in placed.items() if key not in known},
            lambda what: cluster.ranked(what, available),
            _raise,
        )
        self._report(placed.keys() - known.keys())
        for node, keys in wanted.items():
            node.put({key: known[key] for key in keys if key in known and key not in have[node]})

    def _report(self, lost: Set[str]) -> None:
        """Say which items are on no node any more. A segment is left out, so that a start finds none missing."""
        if not lost:
            return
        keys = {self._names.segment(self._cluster.manifest, kept.n): kept for kept in self._log.segments}
        segments = {kept for key, kept in keys.items() if key in lost}
        self._log.lose(segments)
        self._log.lose_workloads({number for key in lost if (number := self._names.number(key))})
        log.error("store_lost", extra={"fields": {"items": len(lost), "jobs": self._log.lost}})
        for kept in segments:
            empty = cut(self._names.segment(self._cluster.manifest, kept.n), Segment().dump())
            self._cluster.keep([(placed_segment(kept.n), empty)])

    def _log_shares(self) -> Iterator[Share]:
        for kept in self._log.segments:
            yield True, kept.n, kept.size
        for number, size in self._log.large.items():
            yield False, number, size


Share = tuple[bool, int, int]
"""Whether it is a segment (or a workload), its number, its size."""


def _steps(shares: list[Share]) -> Iterator[list[Share]]:
    """The same in lists for one step each."""
    step: list[Share] = []
    total = 0
    for share in shares:
        step.append(share)
        total += share[2]
        if total > STEP_BYTES or len(step) == STEP_VALUES:
            yield step
            step, total = [], 0
    if step:
        yield step


def _raise(down: NodeDownError) -> None:
    raise down
