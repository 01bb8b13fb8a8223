"""The nodes as one place: every value on some of them, and who is trusted to have what it should.

A value is kept on the ``copies`` available nodes that want it most (rendezvous hashing), so nobody needs a list of
what is where, and a change of the nodes moves no more than it must. A node is found out to have lost everything by the
owner's token and the manifest, which are read back after each write, on the same connection: a restarted node has
neither.

A node that fails is out at once: the manifest is rewritten without it before anything is acknowledged, so whatever it
may still have is known to be stale when it comes back, even to another process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from geartrain.store.base import StoreDownError, StoreError, StoreFullError
from geartrain.store.lease import in_use
from geartrain.store.memcached.manifest import Manifest
from geartrain.store.memcached.node import ITEM_SIZE, Node, NodeDownError, NodeFullError, State

log = logging.getLogger("geartrain.store")

FIRST_PAUSE: Final = 0.1  # seconds until a node that is out is tried again ...
LONGEST_PAUSE: Final = 5.0  # ... doubling up to this

Items = Mapping[str, bytes]


class Cluster:
    """The nodes, which of them are trusted, and the manifest they agree on.

    Its methods are called with ``lock`` held, by the thread that commits and the one that looks after the nodes.
    """

    def __init__(self, nodes: list[Node], copies: int, namespace: str, accept_eviction: bool, shown: str) -> None:
        self.nodes = nodes
        self.copies = copies
        self.shown = shown
        self.lock = threading.RLock()
        self.token = b""
        self.changed: set[Node] = set()  # whose share may not have all its copies
        self.emptied: set[Node] = set()  # that came back without what they had, and are not filled yet
        self.lost_at: dict[Node, float] = {}
        self.woken = threading.Event()  # there is something for the thread that looks after the nodes
        self.owner_key = f"{namespace}.owner"
        self.manifest_key = f"{namespace}.head"
        self.manifest = Manifest(0, 0, "", (), (("", 0),))  # that all its members have
        self._manifests: dict[Node, bytes] = {}  # the manifest as each node has it
        self._revision = 0
        self._accept_eviction = accept_eviction

    def adopt(self, manifest: Manifest, manifests: dict[Node, bytes], token: bytes) -> None:
        """Go on from the manifest that the nodes have, as a new owner."""
        self.manifest = manifest
        self.token = token
        self._revision = 0
        self._manifests = manifests

    # ── which nodes ─────────────────────────────────────────────────────────────────────────────────────────────

    def available(self) -> list[Node]:
        return [node for node in self.nodes if node.state in (State.IN, State.FILLING)]

    def out(self) -> list[Node]:
        return [node for node in self.nodes if node.state is State.OUT]

    def check(self) -> None:
        """Raise StoreDownError if so many nodes are away that jobs may be lost."""
        out = self.out()
        filling = [node for node in self.nodes if node.state in (State.FILLING, State.STALE)]
        if out and len(out) + len(filling) >= self.copies:
            words = "; ".join(f"{node.name}: {node.reason}" for node in out)
            still = "".join(f"; {node.name} is still being filled" for node in filling)
            bears = "no node" if self.copies == 1 else f"{self.copies - 1} of its nodes"
            raise StoreDownError(
                f"the store {self.shown} can do without {bears}, but {words}{still}: start what is down"
            )

    def check_emptied(self) -> None:
        """Raise StoreDownError if so many nodes were emptied that it is not known yet what is left."""
        if len(self.emptied) >= self.copies:
            names = ", ".join(sorted(node.name for node in self.emptied))
            raise StoreDownError(f"the store {self.shown}: {names} lost what they had, and are being filled: wait")

    def ranked(self, what: bytes, nodes: Iterable[Node]) -> list[Node]:
        """The nodes, the one that wants it most first."""
        return sorted(nodes, key=lambda node: node.weight(what), reverse=True)

    def homes(self, what: bytes) -> list[Node]:
        """Where a value is to be kept now."""
        return self.ranked(what, self.available())[: self.copies]

    # ── values ──────────────────────────────────────────────────────────────────────────────────────────────────

    def keep(self, values: Sequence[tuple[bytes, Items]]) -> None:
        """Keep values, each on all its homes; the last one only when all others are kept.

        A value is (what it is placed by, its items). Raises StoreFullError, and then has taken all of it back.
        """
        while True:
            self.agree()
            try:
                self._put(values[:-1])
                self._put(values[-1:])
                return
            except NodeDownError as down:
                self.lose(down.node, str(down))
            except NodeFullError as full:
                self.forget(key for _, items in values for key in items)
                raise StoreFullError(
                    f"the store {self.shown}: {full.node.name}: {full}: have workers take jobs, or give it more memory"
                    " (-m)"
                ) from full

    def _put(self, values: Sequence[tuple[bytes, Items]]) -> None:
        shares: dict[Node, dict[str, bytes]] = {}
        for what, items in values:
            for node in self.homes(what):
                shares.setdefault(node, {}).update(items)
        for node, share in shares.items():
            node.put(share)
        for node in shares:
            self._verify(node)

    def _verify(self, node: Node) -> None:
        """Raise NodeDownError if the node lost what it had, StoreInUseError if it is another job server's by now."""
        found = node.get([self.owner_key, self.manifest_key])
        self.check_owner(node, found.get(self.owner_key))
        if node.state is State.IN and found.get(self.manifest_key) != self._manifests[node]:
            raise NodeDownError(node, "it has lost its manifest item")

    def check_owner(self, node: Node, owner: bytes | None) -> None:
        if owner is None:
            raise NodeDownError(node, "it was emptied")
        if owner != self.token:
            raise in_use(owner, self.shown)

    def verify(self) -> None:
        """Raise StoreDownError or StoreInUseError if nothing could be kept now."""
        for node in self.available():
            try:
                self._verify(node)
            except NodeDownError as down:
                self.lose(node, str(down))
        self.agree()

    def forget(self, keys: Iterable[str]) -> None:
        """Delete items wherever they are; a node that fails is found out later."""
        wanted = list(keys)
        for node in self.available():
            with suppress(NodeDownError):
                node.forget(wanted)

    # ── the nodes' coming and going ─────────────────────────────────────────────────────────────────────────────

    def agree(self) -> None:
        """Have all trusted nodes agree on who they are, if they do not. Raises StoreDownError if too many are away."""
        self.check()
        if {node.name for node in self.nodes if node.state is State.IN} != set(self.manifest.members):
            self.establish()

    def establish(self, **changes: Any) -> None:
        """Have all trusted nodes agree on the manifest with these changes, and on who they are."""
        while True:
            self.check()
            members = [node for node in self.nodes if node.state is State.IN]
            self._revision += 1
            names = tuple(node.name for node in members)
            manifest = replace(self.manifest, revision=self._revision, members=names, **changes)
            raw = manifest.dump()
            try:
                for node in members:
                    self._write_manifest(node, raw)
            except NodeDownError as down:
                self.lose(down.node, str(down))
            except NodeFullError as full:
                raise StoreFullError(
                    f"the store {self.shown}: {full.node.name}: {full}: give it more memory (-m)"
                ) from full
            else:
                self.manifest = manifest
                return

    def _write_manifest(self, node: Node, raw: bytes) -> None:
        found = node.gets([self.owner_key, self.manifest_key])
        self.check_owner(node, found.get(self.owner_key, (None, b""))[0])
        there, mark = found.get(self.manifest_key, (None, b""))
        if there != self._manifests.get(node):
            raise NodeDownError(node, "its manifest item is another one")
        written = node.replace(self.manifest_key, raw, mark) if there is not None else node.add(self.manifest_key, raw)
        if not written:
            raise NodeDownError(node, "its manifest item was changed by somebody else")
        self._manifests[node] = raw

    def lose(self, node: Node, reason: str) -> None:
        """Do without a node from now on; it is told to the others before anything is acknowledged."""
        node.state = State.OUT
        node.reason = reason
        node.close()
        self._manifests.pop(node, None)
        self.lost_at[node] = time.monotonic()
        self.changed.add(node)
        self.woken.set()
        log.error("store_node_lost", extra={"fields": {"node": node.name, "reason": reason}})

    def trust(self, node: Node, raw: bytes) -> None:
        """Trust a node again that has this manifest."""
        node.state = State.IN
        node.reason = ""
        self._manifests[node] = raw

    def accept(self, node: Node) -> None:
        """Raise StoreError if a node can't be used as it was started, NodeDownError if it does not answer."""
        settings = node.settings()
        if settings.get("evictions") != "off" and not self._accept_eviction:
            raise StoreError(
                f"the memcached {node.name} may throw jobs away when its memory is full: start it with -M (in Debian a"
                " line -M in /etc/memcached.conf), or accept it by ?accept_eviction=yes"
            )
        size = int(settings.get("item_size_max", ITEM_SIZE))
        if size < ITEM_SIZE:
            raise StoreError(
                f"the memcached {node.name} takes items of up to {size} bytes (-I), and {ITEM_SIZE} are needed:"
                " start it with -I 1m or more"
            )
