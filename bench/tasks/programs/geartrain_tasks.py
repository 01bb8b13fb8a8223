"""geartrain: a typed function, background jobs submitted many at a time; a blocking or an asyncio worker."""

import sys
from collections.abc import Iterator

import trivial

from geartrain import AsyncWorker, Client, Worker


def work_blocking(threads: int) -> None:
    worker = Worker()
    worker.function()(trivial.add)
    worker.run(threads=threads)


def work_asyncio(concurrency: int) -> None:
    worker = AsyncWorker()

    @worker.function()
    async def add(x: int, y: int) -> int:
        return trivial.add(x, y)

    worker.run(concurrency=concurrency)


def produce(count: int) -> None:
    add = Worker().function()(trivial.add)
    with Client() as client:

        def submit(arguments: Iterator[tuple[int, int]]) -> None:
            for _ in client.map_background("add", (add.encode_arguments(pair, {}) for pair in arguments)):
                pass

        trivial.fill(submit, count)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        {"blocking": work_blocking, "asyncio": work_asyncio}[sys.argv[2]](int(sys.argv[3]))
    else:
        produce(int(sys.argv[1]))
