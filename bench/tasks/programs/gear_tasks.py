"""gear: a loop around getJob, arguments and results as JSON."""

import json
import os
import sys
from collections.abc import Iterator

import gear
import trivial

HOST, PORT = os.environ["GEARMAN_SERVERS"].split(":")


def work() -> None:
    worker = gear.Worker("bench")
    worker.addServer(HOST, int(PORT))
    worker.waitForServer()
    worker.registerFunction("add")
    while True:
        job = worker.getJob()
        result = trivial.add(*json.loads(job.arguments))
        job.sendWorkComplete(json.dumps(result).encode())


def produce(count: int) -> None:
    client = gear.Client()
    client.addServer(HOST, int(PORT))
    client.waitForServer()

    def submit(arguments: Iterator[tuple[int, int]]) -> None:
        for pair in arguments:
            client.submitJob(gear.Job(b"add", json.dumps(pair).encode()), background=True)

    trivial.fill(submit, count)
    client.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work()
    else:
        produce(int(sys.argv[1]))
