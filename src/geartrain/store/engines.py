"""Which engine a URL means. Third parties add theirs by an entry point in the group ``geartrain.stores``.

An entry point's name is the URL's scheme, its object a subclass of ``Store`` that is made from the URL.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from geartrain.redaction import learn, shown_url
from geartrain.store.base import Store, StoreError

# scheme: (module, class, what to install)
ENGINES: Final = {
    "sqlite": ("geartrain.store.sql", "SqlStore", "geartrain[server]"),
    "postgresql": ("geartrain.store.sql", "SqlStore", "geartrain[postgresql]"),
    "mysql": ("geartrain.store.sql", "SqlStore", "geartrain[mysql]"),
    "mariadb": ("geartrain.store.sql", "SqlStore", "geartrain[mysql]"),
    "redis": ("geartrain.store.redis", "RedisStore", "geartrain[redis]"),
    "rediss": ("geartrain.store.redis", "RedisStore", "geartrain[redis]"),
    "valkey": ("geartrain.store.redis", "RedisStore", "geartrain[redis]"),
    "memcached": ("geartrain.store.memcached", "MemcachedStore", "geartrain[memcached]"),
}


def engine(url: str) -> Store:
    """The store that ``url`` names, not opened yet.

    Raises StoreError for an unknown scheme, and where the engine's library is not installed.
    """
    learn(url, is_secret=True)
    begin, colon, rest = url.partition(":")
    url = begin.lower() + colon + rest
    scheme = begin.lower().partition("+")[0]
    for found in entry_points(group="geartrain.stores", name=scheme):
        made: Store = found.load()(url)
        return made
    if scheme not in ENGINES:
        known = ", ".join(sorted([*ENGINES, "memory"]))
        raise StoreError(f"no store is known for {shown_url(url)!r}: its scheme must be one of {known}")
    module, name, package = ENGINES[scheme]
    try:
        kind: type[Store] = getattr(import_module(module), name)
        return kind(url)  # SQLAlchemy imports a database's library only here
    except ImportError as error:
        raise StoreError(f"the store {shown_url(url)!r} needs {error.name}: pip install '{package}'") from error
