"""Celery: no results, many messages fetched at once, as its guide to optimising says for short tasks."""

import os
import sys
from collections.abc import Iterator

import trivial
from celery import Celery

app = Celery("tasks", broker=os.environ["REDIS_URL"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=128)
add = app.task(trivial.add, name="add")


def submit(arguments: Iterator[tuple[int, int]]) -> None:
    with app.producer_or_acquire() as producer:  # one connection for all
        for pair in arguments:
            add.apply_async(pair, producer=producer)


if __name__ == "__main__":
    trivial.fill(submit, int(sys.argv[1]))
