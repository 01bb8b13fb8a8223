"""A client and a worker on PyPI's ``gear``, driven by the tests line by line.

The requests, events and behaviours are listed in ../peer.py; every peer of the tests speaks them.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time

import gear

PRECEDENCE = {
    "high": gear.PRECEDENCE_HIGH,
    "normal": gear.PRECEDENCE_NORMAL,
    "low": gear.PRECEDENCE_LOW,
}


def say(*words: object) -> None:
    print(*words, sep="\t", flush=True)


class TellingClient(gear.Client):
    """A client that tells every packet about the job at hand."""

    def __init__(self) -> None:
        self.ended = threading.Condition()
        self.ends = 0
        self.quiet = False
        super().__init__("test-client")

    def end(self, *words: object) -> None:
        if not self.quiet:
            say(*words)
        with self.ended:
            self.ends += 1
            self.ended.notify()

    def wait_for(self, ends: int) -> None:
        with self.ended:
            self.ended.wait_for(lambda: self.ends >= ends)
            self.ends = 0

    def handleJobCreated(self, packet: gear.Packet) -> gear.Job:
        if not self.quiet:
            say("created", packet.data.decode())
        return super().handleJobCreated(packet)

    def handleWorkData(self, packet: gear.Packet) -> gear.Job:
        say("data", packet.getArgument(1, True).hex())
        return super().handleWorkData(packet)

    def handleWorkWarning(self, packet: gear.Packet) -> gear.Job:
        say("warning", packet.getArgument(1, True).hex())
        return super().handleWorkWarning(packet)

    def handleWorkStatus(self, packet: gear.Packet) -> gear.Job:
        say("status", packet.getArgument(1).decode(), packet.getArgument(2).decode())
        return super().handleWorkStatus(packet)

    def handleWorkComplete(self, packet: gear.Packet) -> gear.Job:
        job = super().handleWorkComplete(packet)
        self.end("complete", packet.getArgument(1, True).hex())
        return job

    def handleWorkFail(self, packet: gear.Packet) -> gear.Job:
        job = super().handleWorkFail(packet)
        self.end("fail", "")
        return job

    def handleWorkException(self, packet: gear.Packet) -> gear.Job:
        job = super().handleWorkException(packet)
        self.end("exception", packet.getArgument(1, True).hex())
        return job

    def handleStatusRes(self, packet: gear.Packet) -> gear.Job:
        self.end("known", *(packet.getArgument(i).decode() for i in (1, 2, 3, 4)))
        return super().handleStatusRes(packet)

    def ask_status(self, handle: str) -> None:
        packet = gear.Packet(gear.constants.REQ, gear.constants.GET_STATUS, handle.encode())
        self.sendPacket(packet, self.getConnection())
        self.wait_for(ends=1)

    def submit_many(self, count: int, function: str) -> None:
        self.quiet = True
        jobs = [gear.Job(function, b"number %d" % i) for i in range(count)]
        for job in jobs:
            self.submitJob(job)
        self.wait_for(ends=count)
        self.quiet = False
        say("correct", sum(b"".join(job.data) == job.arguments[::-1] for job in jobs))


def be_client(host: str, port: int, exceptions: str) -> None:
    client = TellingClient()
    client.addServer(host, port)
    client.waitForServer(timeout=5)
    if exceptions == "exceptions":
        client.setOption("exceptions")
    for line in sys.stdin:
        match line.rstrip("\n").split("\t"):
            case ["run" | "background" as request, priority, function, unique, workload]:
                background = request == "background"
                job = gear.Job(function, bytes.fromhex(workload), unique.encode() or None)
                client.submitJob(job, background=background, precedence=PRECEDENCE[priority])
                if not background:
                    client.wait_for(ends=1)
            case ["many", count, function]:
                client.submit_many(int(count), function)
            case ["status", handle]:
                client.ask_status(handle)


served = itertools.count()


def serve(job: gear.WorkerJob, behaviour: str) -> None:
    say("taken", job.arguments[:16].hex())
    if behaviour.startswith("twice-"):
        behaviour = behaviour.removeprefix("twice-") if next(served) < 2 else "reverse"
    match behaviour:
        case "late":
            time.sleep(1.5)
            job.sendWorkComplete(job.arguments[::-1])
        case "reverse":
            job.sendWorkComplete(job.arguments[::-1])
        case "talk":
            job.sendWorkData(b"first")
            job.sendWorkWarning(b"careful")
            job.sendWorkStatus(3, 4)
            job.sendWorkComplete(b"last")
        case "raise":
            job.sendWorkException(job.arguments)
        case "stall":
            job.sendWorkStatus(1, 9)
            threading.Event().wait()
        case _:
            job.sendWorkFail()


def be_worker(host: str, port: int, worker_id: str, *functions: str) -> None:
    behaviours = dict(pair.split("=") for pair in functions)
    worker = gear.Worker(worker_id)
    worker.addServer(host, port)
    worker.waitForServer(timeout=5)
    for name in behaviours:
        worker.registerFunction(name)
    while True:
        job = worker.getJob()
        serve(job, behaviours[job.name])


role, host, port, *rest = sys.argv[1:]
(be_client if role == "client" else be_worker)(host, int(port), *rest)
