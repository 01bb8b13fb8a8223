"""gearmand's hashes in Redis or Valkey: ``<prefix>-<function>-<unique>`` with the fields data and priority.

gearmand 2 also keeps function and unique as fields, so that nothing has to be read out of the key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from geartrain.jobserver.records import StoredJob
from geartrain.redaction import redacted, shown_url
from geartrain.store.base import StoreError, Unreadable
from geartrain.store.gearmand.names import split
from geartrain.store.gearmand.queue import GearmandQueue, about
from geartrain.store.options import Options, check_port

KEYS_AT_ONCE: Final = 100
_PATTERN_SIGNS: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\*?[]"})


class RedisQueue(GearmandQueue):
    """The jobs under one prefix."""

    def __init__(self, url: str, functions: Collection[bytes]) -> None:
        super().__init__(url, functions)
        options = Options(url)
        check_port(url)
        self._shown = shown_url(url)
        self._prefix = options.left.pop("prefix", "_gear_") + "-"
        if options.left:
            raise StoreError(f"gearmand's queue at {self._shown}: the option {next(iter(options.left))} is not known")
        target = url.partition("?")[0].replace("valkey://", "redis://", 1)
        with self._translated():
            self._redis = Redis.from_url(target, socket_timeout=30)
            pattern = self._prefix.translate(_PATTERN_SIGNS) + "*"
            # A key may come twice if others are written meanwhile.
            self._keys = sorted(set(self._redis.scan_iter(match=pattern, count=1000)))

    def count(self) -> int:
        return len(self._keys)

    def jobs(self) -> Iterator[StoredJob | Unreadable]:
        for start in range(0, len(self._keys), KEYS_AT_ONCE):
            keys = self._keys[start : start + KEYS_AT_ONCE]
            with self._translated():
                pipeline = self._redis.pipeline(transaction=False)
                for key in keys:
                    pipeline.hmget(key, ["function", "unique", "data", "priority"])
                answers = pipeline.execute(raise_on_error=False)
            for key, answer in zip(keys, answers, strict=True):
                yield self._job(key, answer)

    def _job(self, key: bytes, answer: Any) -> StoredJob | Unreadable:
        name = key[len(self._prefix.encode()) :]
        function: bytes | None = None
        unique: bytes | None = None
        try:
            if isinstance(answer, ResponseError):
                raise ValueError(f"it is no hash: {answer}")
            if isinstance(answer, Exception):
                raise StoreError(f"gearmand's queue at {self._shown}: {answer}") from answer
            function, unique, workload, priority = answer
            if workload is None:
                raise ValueError("it has no field data")
            if function is None or unique is None:
                function, unique = split(name, self.functions)
            return self.job(function, unique, workload, int(priority or b"none"), 0)
        except ValueError as error:
            return about(function or key, unique, error)

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, ValueError) as error:
            raise StoreError(f"gearmand's queue at {self._shown}: {redacted(str(error))}") from error
