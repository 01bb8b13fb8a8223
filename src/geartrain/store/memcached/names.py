"""The keys of a namespace, and what values are placed by."""

from __future__ import annotations

from collections.abc import Container

from geartrain.store.memcached.manifest import Manifest
from geartrain.store.memcached.segment import part_names


class Names:
    """Under ``{namespace}.`` there are

    head, owner     see ``memcached.manifest`` and ``store.lease``
    lease           that the owner lives
    node            how the cluster calls the node
    SESSION.N       a segment
    w.NUMBER        a workload that is not in its segment
    begun           what is about to be written before the next segment
    damaged.N       a segment that could not be read

    A value above an item's size goes on under the same key and .1, .2, ...
    """

    def __init__(self, namespace: str) -> None:
        self.prefix = f"{namespace}."
        self.lease = self.prefix + "lease"
        self.node = self.prefix + "node"
        self.begun = self.prefix + "begun"

    def segment(self, manifest: Manifest, n: int) -> str:
        return f"{self.prefix}{manifest.session_of(n)}.{n}"

    def workload(self, number: int) -> str:
        return f"{self.prefix}w.{number}"

    def workload_items(self, number: int, size: int) -> list[str]:
        """All keys of a workload of ``size`` bytes."""
        key = self.workload(number)
        return [key, *part_names(key, size)]

    def number(self, key: str) -> int:
        """The number of the job whose workload the item is (part of); 0 if it is none."""
        kind, number, *_ = key.removeprefix(self.prefix).split(".")
        return int(number) if kind == "w" else 0

    def belongs(self, key: str, workloads: Container[int], segments: Container[int]) -> bool:
        """Whether an item is (part of) one of these workloads or segments."""
        kind, number, *_ = key.removeprefix(self.prefix).split(".")
        return int(number) in (workloads if kind == "w" else segments)

    def damaged(self, n: int) -> str:
        return f"{self.prefix}damaged.{n}"


def placed_segment(n: int) -> bytes:
    return b"segment %d" % n


def placed_workload(number: int) -> bytes:
    return b"workload %d" % number


PLACED_BEGUN = b"begun"
