"""One memcached of a cluster, for one thread at a time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from hashlib import blake2b
from typing import Final, TypeVar

from pymemcache.client.base import Client  # type: ignore[import-untyped]
from pymemcache.exceptions import (  # type: ignore[import-untyped]
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
)

from geartrain.store.base import StoreError

CONNECT_TIMEOUT: Final = 1.0  # seconds
ANSWER_TIMEOUT: Final = 2.0
BYTES_AT_ONCE: Final = 4 << 20
KEYS_AT_ONCE: Final = 200
ITEM_SIZE: Final = 1 << 20  # bytes, key and all; what a memcached takes unless it is told otherwise

T = TypeVar("T")


class NodeDownError(Exception):
    """The node does not answer, or has lost what it kept."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node


class NodeFullError(Exception):
    """The node has no memory for what it was given."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node


class State(Enum):
    """How far a node is trusted."""

    IN = "in"  # it has all that it should have
    FILLING = "filling"  # it has all since it came back, and gets the rest
    STALE = "stale"  # it answers, but what it has is old and must be deleted
    OUT = "out"  # it does not answer


class _Client(Client):  # type: ignore[misc]
    """The library's, which would try no more than the first address of a name, for localhost one that few listen on."""

    def _connect(self) -> None:
        self.close()
        connection = socket.create_connection(self.server, CONNECT_TIMEOUT)
        connection.settimeout(ANSWER_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = connection


class Node:
    """A memcached at ``host:port``; ``name`` is how the cluster calls it.

    Every method raises NodeDownError; a connection that was lost is made again once.
    """

    def __init__(self, host: str, port: int, name: str) -> None:
        self.host = host
        self.port = port
        self.name = name
        self.state = State.OUT
        self.reason = "it has not been asked yet"  # why it is out
        self._hash = blake2b(name.encode(), digest_size=8)
        self._client = _Client((host, port), default_noreply=False)

    def again(self) -> Node:
        """The same node with a connection of its own."""
        return Node(self.host, self.port, self.name)

    def weight(self, what: bytes) -> bytes:
        """How much this node wants to keep ``what``; those that want it most do."""
        own = self._hash.copy()
        own.update(what)
        return own.digest()

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Those of the items that are there."""
        found: dict[str, bytes] = {}
        wanted = list(keys)
        for at in range(0, len(wanted), KEYS_AT_ONCE):
            some = wanted[at : at + KEYS_AT_ONCE]
            found.update(self._do(partial(self._client.get_many, some)))
        return found

    def gets(self, keys: Iterable[str]) -> dict[str, tuple[bytes, bytes]]:
        """The same, each with the mark by which ``replace`` knows that it has not changed."""
        return self._do(lambda: self._client.gets_many(list(keys)))

    def put(self, items: Mapping[str, bytes], seconds: int = 0) -> None:
        """Keep items, for so many seconds or for ever. Raises NodeFullError."""
        for some in _portions(items):
            self._do(partial(self._client.set_many, some, expire=seconds))

    def add(self, key: str, value: bytes, seconds: int = 0) -> bool:
        """Keep an item unless there is one of that name; whether it was kept."""
        return bool(self._do(lambda: self._client.add(key, value, expire=seconds), once=True))

    def replace(self, key: str, value: bytes, mark: bytes, seconds: int = 0) -> bool:
        """Change an item if it is as ``gets`` found it; whether it was changed."""
        return bool(self._do(lambda: self._client.cas(key, value, mark, expire=seconds), once=True))

    def forget(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        for at in range(0, len(wanted), KEYS_AT_ONCE):
            some = wanted[at : at + KEYS_AT_ONCE]
            self._do(partial(self._client.delete_many, some, noreply=True))

    def settings(self) -> dict[str, str]:
        """How it was started."""
        found = self._do(lambda: self._client.stats("settings"))
        return {_text(name): _text(value) for name, value in found.items()}

    def close(self) -> None:
        self._client.close()

    def _do(self, act: Callable[[], T], once: bool = False) -> T:
        """What ``act`` returns; it is done twice if the connection was lost, unless it may be done ``once`` alone."""
        once = once or self._client.sock is None
        while True:
            try:
                return act()
            except TimeoutError as error:
                raise NodeDownError(self, str(error) or "no answer") from error
            except (OSError, MemcacheUnexpectedCloseError) as error:
                if once:
                    raise NodeDownError(self, str(error) or "it closed the connection") from error
                once = True
            except MemcacheServerError as error:
                words = _text(error.args[0] if error.args else "")
                if "out of memory" in words:
                    raise NodeFullError(self, words) from error
                if "too large" in words:
                    raise StoreError(f"the memcached {self.name}: {words}: start it with -I 1m or more") from error
                raise NodeDownError(self, words) from error
            except MemcacheError as error:
                raise NodeDownError(self, f"it answered what no memcached answers: {error!r}") from error


def _portions(items: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    portion: dict[str, bytes] = {}
    size = 0
    for key, value in items.items():
        if portion and size + len(value) > BYTES_AT_ONCE:
            yield portion
            portion, size = {}, 0
        portion[key] = value
        size += len(value)
    if portion:
        yield portion


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
