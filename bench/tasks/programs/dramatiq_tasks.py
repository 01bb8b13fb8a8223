"""dramatiq: without a result backend, and otherwise as it comes."""

import os
import sys
from collections.abc import Iterator

import dramatiq
import trivial
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))
add = dramatiq.actor(trivial.add)


def submit(arguments: Iterator[tuple[int, int]]) -> None:
    for x, y in arguments:
        add.send(x, y)


if __name__ == "__main__":
    trivial.fill(submit, int(sys.argv[1]))
