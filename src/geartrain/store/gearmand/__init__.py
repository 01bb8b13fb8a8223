"""Reading the queues that gearmand has kept: each of its layouts gives the jobs in it, and changes nothing.

The URL is that of the place with ``gearmand+`` before it, and gearmand's own option behind it:

    gearmand+sqlite:////var/lib/gearman/queue.db?table=gearman_queue
    gearmand+mysql://user:password@host/database?table=gearman_queue
    gearmand+postgresql://user:password@host/database?table=queue
    gearmand+redis://:password@host:6379/0?prefix=_gear_
    gearmand+memcached://a:11211,b:11211?prefix=gear_
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Final

from geartrain.redaction import learn, shown_url
from geartrain.store.base import StoreError
from geartrain.store.gearmand.queue import GearmandQueue

PREFIX: Final = "gearmand+"

# scheme: (module, class, what to install)
LAYOUTS: Final = {
    "sqlite": ("sql", "SqlQueue", "geartrain[server]"),
    "mysql": ("sql", "SqlQueue", "geartrain[mysql]"),
    "mariadb": ("sql", "SqlQueue", "geartrain[mysql]"),
    "postgresql": ("sql", "SqlQueue", "geartrain[postgresql]"),
    "redis": ("redis", "RedisQueue", "geartrain[redis]"),
    "rediss": ("redis", "RedisQueue", "geartrain[redis]"),
    "valkey": ("redis", "RedisQueue", "geartrain[redis]"),
    "memcached": ("memcached", "MemcachedQueue", "geartrain[memcached]"),
}


def open_queue(url: str, functions: Collection[bytes] = ()) -> GearmandQueue:
    """The queue that a gearmand has kept at ``url``.

    ``functions`` are names that help to read keys made of a function and a unique; see ``gearmand.names``. Raises
    StoreError if there is no such queue, with what to do.
    """
    learn(url.removeprefix(PREFIX), is_secret=True)
    scheme = url.removeprefix(PREFIX).partition(":")[0]
    if scheme not in LAYOUTS:
        known = ", ".join(f"{PREFIX}{name}" for name in LAYOUTS)
        raise StoreError(f"{shown_url(url)!r} is no queue of gearmand's: its scheme must be one of {known}")
    module, name, package = LAYOUTS[scheme]
    try:
        kind: type[GearmandQueue] = getattr(import_module(f"geartrain.store.gearmand.{module}"), name)
    except ImportError as error:
        raise StoreError(f"{shown_url(url)!r} needs {error.name}: pip install '{package}'") from error
    return kind(url.removeprefix(PREFIX), functions)


__all__ = ["PREFIX", "GearmandQueue", "open_queue"]
