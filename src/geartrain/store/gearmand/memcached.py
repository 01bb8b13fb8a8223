"""gearmand's items in memcached servers: ``<prefix><function>-<unique>``, the priority in the item's flags.

memcached lists its keys only in a dump for administrators, which may miss what comes or goes meanwhile; what it has
thrown away to make room is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pymemcache.client.base import Client  # type: ignore[import-untyped]
from pymemcache.exceptions import MemcacheError  # type: ignore[import-untyped]

from geartrain.jobserver.records import StoredJob
from geartrain.redaction import redacted, shown_url
from geartrain.store.base import StoreError, Unreadable
from geartrain.store.gearmand.names import split
from geartrain.store.gearmand.queue import GearmandQueue, about
from geartrain.store.memcached import metadump
from geartrain.store.options import Options

KEYS_AT_ONCE: Final = 50
DEFAULT_PORT: Final = 11211


def _address(written: str) -> tuple[str, int]:
    host, colon, port = written.rpartition(":")
    if colon and port.isdecimal():
        return host.strip("[]"), int(port)
    return written.strip("[]"), DEFAULT_PORT


class _WithFlags:
    """Gives pymemcache's values with their flags."""

    def serialize(self, key: bytes, value: bytes) -> tuple[bytes, int]:
        return value, 0

    def deserialize(self, key: bytes, value: bytes, flags: int) -> tuple[bytes, int]:
        return value, flags


class MemcachedQueue(GearmandQueue):
    """The jobs under one prefix, on all of the servers that the URL lists."""

    def __init__(self, url: str, functions: Collection[bytes]) -> None:
        super().__init__(url, functions)
        options = Options(url)
        self._shown = shown_url(url)
        self._prefix = options.left.pop("prefix", "gear_").encode()
        if options.left:
            raise StoreError(f"gearmand's queue at {self._shown}: the option {next(iter(options.left))} is not known")
        self._keys: list[tuple[Client, list[bytes]]] = []
        seen: set[bytes] = set()
        for written in url.partition("://")[2].partition("?")[0].rstrip("/").split(","):
            with self._translated(written):
                address = _address(written)
                node = Client(address, connect_timeout=5, timeout=30, serde=_WithFlags())
                keys = sorted({key for key in metadump.keys(*address) if key.startswith(self._prefix)} - seen)
                evicted = int(node.stats().get(b"evictions", 0))
            if evicted:
                self.notes.append(
                    f"{written} has thrown away {evicted:,} items for want of memory since its start: jobs may be among"
                    " them"
                )
            seen.update(keys)
            self._keys.append((node, keys))

    def count(self) -> int:
        return sum(len(keys) for _, keys in self._keys)

    def jobs(self) -> Iterator[StoredJob | Unreadable]:
        for node, keys in self._keys:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                wanted = keys[start : start + KEYS_AT_ONCE]
                with self._translated(str(node.server)):
                    found: dict[bytes, Any] = node.get_many(wanted)
                for key in wanted:
                    if key in found:  # else it has gone since the dump
                        yield self._job(key, *found[key])

    def _job(self, key: bytes, workload: bytes, flags: int) -> StoredJob | Unreadable:
        function: bytes | None = None
        unique: bytes | None = None
        try:
            function, unique = split(key[len(self._prefix) :], self.functions)
            return self.job(function, unique, workload, flags, 0)
        except ValueError as error:
            return about(function or key, unique, error)

    def close(self) -> None:
        for node, _ in self._keys:
            node.close()

    @contextmanager
    def _translated(self, node: str) -> Iterator[None]:
        try:
            yield
        except (MemcacheError, OSError, ValueError) as error:
            raise StoreError(f"gearmand's queue at {self._shown}: {redacted(f'{node}: {error}')}") from error
