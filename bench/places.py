"""Empty places for the job server's store, one at a time, each with its real service; gone afterwards.

Services are set up to be as safe as they can be: every commit waits for the disk.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from services import MariaDB, Memcached, PostgreSQL, Redis, Valkey, running

PLACES = ("sqlite", "postgresql", "mariadb", "redis", "valkey", "memcached")


@contextlib.contextmanager
def place(name: str) -> Iterator[str]:
    """The URL of an empty store."""
    with contextlib.ExitStack() as stack:
        if name == "sqlite":
            yield f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='geartrain-bench-'))}/queue.sqlite"
        elif name == "postgresql":
            yield stack.enter_context(running(PostgreSQL)).url()
        elif name == "mariadb":
            yield stack.enter_context(running(MariaDB)).url()
        elif name in ("redis", "valkey"):
            yield stack.enter_context(running(Redis if name == "redis" else Valkey)).url()
        else:
            nodes = [stack.enter_context(running(Memcached, "-M", "-m", "4096")) for _ in range(2)]
            yield "memcached://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
