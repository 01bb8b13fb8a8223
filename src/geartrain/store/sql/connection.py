"""One connection to a database, for one thread at a time, that is made again when it has been lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection

from geartrain.store.base import StoreDownError
from geartrain.store.sql.database import BusyError, Database, bare

T = TypeVar("T")


class ReconnectingConnection:
    """A connection made by ``connect`` when it is first used, and again after it was lost."""

    def __init__(self, database: Database, connect: Callable[[], Connection]) -> None:
        self._database = database
        self._connect = connect
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def use(self, act: Callable[[Connection], T]) -> T:
        """What ``act`` returns, given the connection; it may be done twice.

        A connection may have been lost long ago without anybody noticing, so what fails on an old one is tried once
        more on a new one. Raises StoreDownError if that fails too, or another StoreError at once.
        """
        with self._lock:
            while True:
                old = self._connection
                try:
                    if self._connection is None:
                        self._connection = self._connect()
                    return act(self._connection)
                except self._database.errors as error:
                    problem = self._database.translate(error)
                    lost = isinstance(problem, StoreDownError) and not isinstance(problem, BusyError)
                    # A server that crashes for lack of room says so, and then it is gone.
                    if lost or (self._connection is not None and self._connection.invalidated):
                        self._drop()
                    if not lost or old is None:
                        raise problem from bare(error)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*self._database.errors):
                connection.close()
