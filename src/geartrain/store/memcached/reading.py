"""Values from whichever node has them, those that want them most asked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from geartrain.store.memcached.node import Node, NodeDownError
from geartrain.store.memcached.segment import PART, joined, part_names, whole_size

Ranked = Callable[[bytes], Sequence[Node]]
"""The nodes that may have what is placed by these bytes, the most likely one first."""
Failed = Callable[[NodeDownError], None]


def items(wanted: Mapping[str, bytes], ranked: Ranked, failed: Failed) -> dict[str, bytes]:
    """Those of the items (key: what it is placed by) that some node has; ``failed`` hears which did not answer."""
    found: dict[str, bytes] = {}
    nodes = {what: ranked(what) for what in set(wanted.values())}
    left = list(wanted)
    turn = 0
    while left:
        shares: dict[Node, list[str]] = {}
        for key in left:
            ranks = nodes[wanted[key]]
            if turn < len(ranks):
                shares.setdefault(ranks[turn], []).append(key)
        if not shares:
            break
        for node, keys in shares.items():
            try:
                found.update(node.get(keys))
            except NodeDownError as down:
                failed(down)
        left = [key for key in left if key not in found]
        turn += 1
    return found


def values(wanted: Mapping[str, bytes], ranked: Ranked, failed: Failed) -> dict[str, bytes | ValueError]:
    """Those of the values that some node has, put together again, or what is wrong with them."""
    firsts = items(wanted, ranked, failed)
    found: dict[str, bytes | ValueError] = {}
    parts: dict[str, list[str]] = {}
    for key, first in firsts.items():
        try:
            size = whole_size(first)
            if size > PART:
                parts[key] = part_names(key, size)
            else:
                found[key] = joined(first, ())
        except ValueError as error:
            found[key] = error
    for key, names in parts.items():
        others = items(dict.fromkeys(names, wanted[key]), ranked, failed)
        try:
            found[key] = joined(firsts[key], [others.get(name, b"") for name in names])
        except ValueError as error:
            found[key] = error
    return found
