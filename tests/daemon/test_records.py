"""What an extension keeps is there after a restart, on every store, and when the store was taken away meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from lives import FilePlace, Place, on

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.keeper import Keeper
from geartrain.jobserver import JobServer
from geartrain.jobserver.records import Record
from geartrain.store import engine

Kept = dict[bytes, tuple[bytes | None, float]]


class Notebook(Extension):
    """Keeps what it is told, and knows what was there when it was started."""

    def start(self, host: Host) -> None:
        self.host = host
        self.found = self.kept()

    def kept(self) -> Kept:
        return {each.key: (each.value, each.expires) for each in self.host.server.kept_of("note")}

    def write(self, key: bytes, value: bytes | None, expires: float = 0.0) -> None:
        self.host.open_iteration()
        assert self.host.server.keep(Record("note", key, value, expires))


def with_notebook(place: Place, act: Callable[[Daemon, Notebook], Awaitable[None]]) -> Kept:
    """One life of a daemon on this store; what the notebook found at its start."""
    notebook = Notebook()

    async def run() -> None:
        config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": place.url})
        server = JobServer(config.rules())
        keeper = Keeper(server, engine(config.store), config.store_timeout)
        server.tick(time.monotonic(), time.time())
        keeper.load()
        daemon = Daemon(config, server, [keeper, notebook])
        await daemon.start(config.sockets())
        serving = asyncio.create_task(daemon.run())
        try:
            await asyncio.wait_for(act(daemon, notebook), 30)
        finally:
            daemon.stop("the test is over")
            await asyncio.wait_for(serving, 30)

    asyncio.run(run())
    return notebook.found


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not become so")


async def nothing(daemon: Daemon, notebook: Notebook) -> None:
    pass


def test_records_are_there_after_a_restart(place: Place) -> None:
    later = float(int(time.time()) + 1000)

    async def write(daemon: Daemon, notebook: Notebook) -> None:
        assert notebook.found == {}
        notebook.write(b"stays\0\xff", bytes(range(256)) * 1000, later)
        notebook.write(b"changes", b"one")
        notebook.write(b"goes", b"x")
        notebook.write(b"expires", b"x", time.time() + 0.2)
        await until(lambda: daemon.server.is_stored and b"expires" not in notebook.kept())

    async def change(daemon: Daemon, notebook: Notebook) -> None:
        notebook.write(b"changes", b"two")
        notebook.write(b"goes", None)  # the stop waits for it

    first = {b"stays\0\xff": (bytes(range(256)) * 1000, later)}
    assert with_notebook(place, write) == {}
    assert with_notebook(place, change) == {**first, b"changes": (b"one", 0.0), b"goes": (b"x", 0.0)}
    assert with_notebook(place, nothing) == {**first, b"changes": (b"two", 0.0)}


@on("sqlite")
def test_records_are_written_again_when_the_store_was_taken_away(place: FilePlace) -> None:
    async def act(daemon: Daemon, notebook: Notebook) -> None:
        notebook.write(b"stays", b"one")
        notebook.write(b"goes", b"x")
        await until(lambda: daemon.server.is_stored)
        for file in place.file.parent.glob(place.file.name + "*"):
            file.unlink()
        notebook.write(b"goes", None)
        await until(lambda: daemon.server.store.trouble != "")
        daemon.reload()
        await until(lambda: daemon.server.store.trouble == "" and daemon.server.is_stored)

    assert with_notebook(place, act) == {}
    assert with_notebook(place, nothing) == {b"stays": (b"one", 0.0)}
