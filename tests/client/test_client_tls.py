"""Both clients over TLS, through a terminator in front of a job server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hands import working

from certificates import tls_contexts
from geartrain.client import AdminClient, AsyncClient, Client
from geartrain.errors import ConnectError
from servers import RunningServer


@contextlib.contextmanager
def encrypted(server: RunningServer, context: ssl.SSLContext) -> Iterator[str]:
    """The address of a terminator that passes on to ``server`` what it decrypts."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(server.host, server.port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listener:
            address.append(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
            started.set()
            await asyncio.to_thread(over.wait)

    address: list[str] = []
    started, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    started.wait(10)
    try:
        yield address[0]
    finally:
        over.set()
        thread.join(10)


def test_large_workloads_and_many_jobs(server: RunningServer, tmp_path: Path) -> None:
    theirs, ours = tls_contexts(tmp_path)
    workload = os.urandom(3 * 1024 * 1024)
    small = [b"%d" % number for number in range(200)]
    with encrypted(server, theirs) as address, working(server, "reverse"):
        with Client(address, tls=ours) as client:
            assert client.run("reverse", workload, timeout=30) == workload[::-1]
            assert list(client.map("reverse", small)) == [item[::-1] for item in small]

        async def main() -> None:
            async with AsyncClient(address, tls=ours) as client:
                assert await client.run("reverse", workload, timeout=30) == workload[::-1]
                assert [result async for result in client.map("reverse", small)] == [item[::-1] for item in small]

        asyncio.run(main())
        assert AdminClient(address, tls=ours).version()


def test_a_server_that_can_not_show_who_it_is_is_not_used(server: RunningServer, tmp_path: Path) -> None:
    theirs, _ = tls_contexts(tmp_path)
    with (
        encrypted(server, theirs) as address,
        Client(address, tls=ssl.create_default_context()) as client,
        pytest.raises(ConnectError, match="verify"),
    ):
        client.run("reverse")
