"""One connection to a Redis, for one thread: commands and scripts, and errors in our words."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoScriptError, RedisError
from redis.retry import Retry

from geartrain.redaction import redacted
from geartrain.store.base import StoreDownError, StoreError
from geartrain.store.redis import scripts
from geartrain.store.redis.promise import translate

CONNECT_TIMEOUT: Final = 5  # seconds
ANSWER_TIMEOUT: Final = 10
REPLICAS_TIMEOUT: Final = 5  # that replicas may need for what they are waited for

# name: (the script, the name by which Redis knows one that it has run before)
_SCRIPTS: Final = {
    name: (source.encode(), sha1(source.encode()).hexdigest().encode())
    for name, source in vars(scripts).items()
    if name.isupper() and not name.startswith("_")
}


class Server:
    """A Redis as the library's URL ``target`` names it, as ``shown`` to people.

    Every method raises StoreError. The connection is made when it is first needed, and again after it was lost.
    """

    def __init__(self, target: str, shown: str, namespace: str) -> None:
        self.shown = shown
        self._prefix = f"{{{namespace}}}:".encode()  # the braces keep all keys on one node of a cluster
        try:
            self.redis = Redis.from_url(
                target,
                socket_connect_timeout=CONNECT_TIMEOUT,
                socket_timeout=ANSWER_TIMEOUT,
                # A connection may have been lost long ago without anybody noticing. No command of ours minds being
                # given twice; but who did not answer in time is not asked again.
                retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
            )
            pool = self.redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # does not connect, but knows its options
        except (ValueError, TypeError) as error:
            raise StoreError(f"the store {shown}: its URL can't be used: {redacted(str(error))}") from error

    def ask(self, command: str, key: str, *arguments: bytes | int | str) -> Any:
        """What Redis answers to one command on one of our keys."""
        try:
            return self.redis.execute_command(command, self._prefix + key.encode(), *arguments)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise translate(error, self.shown) from error

    def run(self, name: str, keys: Sequence[str], values: Sequence[bytes | int], replicas: int = 0) -> Any:
        """What one of our scripts answers; when ``replicas`` replicas have what it did."""
        source, digest = _SCRIPTS[name]
        arguments = (len(keys), *[self._prefix + key.encode() for key in keys], *values)
        try:
            try:
                return self._run(("EVALSHA", digest, *arguments), replicas)
            except NoScriptError:
                return self._run(("EVAL", source, *arguments), replicas)
        except (RedisError, OSError) as error:
            raise translate(error, self.shown) from error

    def _run(self, command: tuple[str | bytes | int, ...], replicas: int) -> Any:
        if not replicas:
            return self.redis.execute_command(*command)  # type: ignore[no-untyped-call]
        # Both on the same connection, or Redis does not know what is waited for.
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        pipeline.execute_command("WAIT", replicas, REPLICAS_TIMEOUT * 1000)  # type: ignore[no-untyped-call]
        answer, reached = pipeline.execute(raise_on_error=False)
        for each in (answer, reached):
            if isinstance(each, Exception):
                raise each
        if reached < replicas:
            raise StoreDownError(
                f"the store {self.shown}: {reached} of {replicas} replicas have the jobs after {REPLICAS_TIMEOUT} s:"
                " start the others, or wait for fewer by ?wait="
            )
        return answer

    def close(self) -> None:
        self.redis.close()
