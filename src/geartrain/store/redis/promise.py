"""What a Redis promises with the settings that it has, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from geartrain.redaction import redacted
from geartrain.store.base import StoreDownError, StoreError, StoreFullError

# What the library raises, the nearest class first: what it means and what to do about it.
_ERRORS: Final[tuple[tuple[type[Exception], type[StoreError], str], ...]] = (
    (AuthenticationError, StoreError, "check the name and the password in the URL: redis://name:password@host"),
    (AuthorizationError, StoreError, "check the rights of the user in the URL"),
    (NoPermissionError, StoreError, "the user in the URL needs the commands of scripts, hashes and sorted sets"),
    (BusyLoadingError, StoreDownError, "it is starting, and still reads its data"),
    (ConnectionError, StoreDownError, "check that it runs there"),
    (TimeoutError, StoreDownError, "check that it runs there"),
    (OSError, StoreDownError, "check that it runs there"),
    (OutOfMemoryError, StoreFullError, "its memory is full: have workers take jobs, or raise maxmemory"),
    (ReadOnlyError, StoreFullError, "it is a replica, which takes no changes: name the primary in the URL"),
    (MasterDownError, StoreDownError, "it is a replica that has lost its primary"),
    (ClusterDownError, StoreDownError, "its cluster is down"),
    (TryAgainError, StoreDownError, "its cluster moves these keys at the moment"),
    (MovedError, StoreError, "it is one node of a cluster, whose others are not asked: use a Redis on its own"),
)
# What it has no class for, and what a script of an older Redis met: the word of the refusal.
_WORDS: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    ("OOM", StoreFullError, "its memory is full: have workers take jobs, or raise maxmemory"),
    ("MISCONF", StoreFullError, "it can't write to its disk and takes no changes until it can: see its log"),
    ("READONLY", StoreFullError, "it is a replica, which takes no changes: name the primary in the URL"),
    ("NOREPLICAS", StoreDownError, "too few replicas follow it (min-replicas-to-write)"),
    ("BUSY", StoreDownError, "another client's script keeps it busy"),
    ("WRONGTYPE", StoreError, "something else uses these keys: give the job server another namespace"),
)


def translate(error: Exception, shown: str) -> StoreError:
    """Our words for an error of the library; ``shown`` is the place."""
    words = redacted(str(error)) or type(error).__name__
    for kind, ours, remedy in _ERRORS:
        if isinstance(error, kind):
            return ours(f"the store {shown}: {words}: {remedy}")
    for word, ours, remedy in _WORDS:
        if isinstance(error, ResponseError) and re.search(rf"(^|-){word}\b", words):
            return ours(f"the store {shown}: {words}: {remedy}")
    return StoreError(f"the store {shown}: {words}")


def check_eviction(redis: Redis, shown: str) -> None:
    """Raise StoreError if this Redis may throw jobs away when its memory is full.

    The policies named volatile-* are no harm: only what has a time to live is thrown away, and no job has.
    """
    memory: Mapping[str, Any] = redis.info("memory")
    policy = memory.get("maxmemory_policy", "unknown")
    if memory.get("maxmemory") and policy.startswith("allkeys"):
        raise StoreError(
            f"the store {shown} may throw jobs away when its memory is full (maxmemory-policy {policy}): set"
            " maxmemory-policy noeviction, or accept it by ?accept_eviction=yes"
        )


def survives(redis: Redis) -> str:
    """What a committed job survives, as far as Redis tells how it is set up."""
    settings: Mapping[Any, Any] = {}
    with suppress(RedisError):  # hosted ones forbid it
        settings = redis.config_get("append*", "save", "no-appendfsync-on-rewrite")
    try:
        append = settings.get("appendonly") or ("yes" if redis.info("persistence")["aof_enabled"] else "no")
    except (RedisError, KeyError):
        return "a crash of the job server; unknown is what a crash of Redis does, as it does not tell its settings"
    if append == "yes":
        fsync = settings.get("appendfsync", "unknown")
        if fsync == "always" and settings.get("no-appendfsync-on-rewrite") == "yes":
            fsync = "always, but not while the file is rewritten"
        return f"{_APPENDED.get(fsync, _APPENDED['unknown'])} (appendonly yes, appendfsync {fsync})"
    save = settings.get("save")
    if save == "":
        return "a crash of the job server; a restart of Redis loses all jobs (appendonly no, no snapshots)"
    said = f"save {save}" if save else "save unknown"
    return f"a crash of the job server; a crash of Redis loses the jobs since its last snapshot (appendonly no, {said})"


_APPENDED: Final = {
    "always": "a crash of the job server, of Redis, of the machine, and a power cut",
    "always, but not while the file is rewritten": "a crash of the job server and of Redis; a power cut while the file"
    " is rewritten loses the jobs since then",
    "everysec": "a crash of the job server; a crash of Redis or a power cut may take the last two seconds",
    "no": "a crash of the job server and of Redis; a power cut may take the last half minute",
    "unknown": "a crash of the job server; unknown is what a crash of Redis or a power cut may take",
}
