"""RQ: no results kept, many jobs in one pipeline."""

import os
import sys
from collections.abc import Iterator
from itertools import islice

import trivial
from redis import Redis
from rq import Queue

BATCH = 500

queue = Queue(connection=Redis.from_url(os.environ["REDIS_URL"]))


def submit(arguments: Iterator[tuple[int, int]]) -> None:
    while batch := [Queue.prepare_data(trivial.add, pair, result_ttl=0) for pair in islice(arguments, BATCH)]:
        queue.enqueue_many(batch)


if __name__ == "__main__":
    trivial.fill(submit, int(sys.argv[1]))
