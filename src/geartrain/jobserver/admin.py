"""The administrative text protocol (section 4): one line asks, one line or a listing answers.

Line ends are mixed as gearmand's are: data lines, the closing dot and ``OK value`` end in LF, plain ``OK`` and every
``ERR`` in CR LF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.job import DELAYED, RUNNING
from geartrain.jobserver.outcome import cancel
from geartrain.wire.primitives import parse_handle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.function import Function
    from geartrain.jobserver.job import Job
    from geartrain.jobserver.peer import Peer
    from geartrain.jobserver.server import JobServer

OK: Final = b"OK\r\n"
DOT: Final = b".\n"
MAX_WORDS: Final = 5
_CHUNK: Final = 16 * 1024  # bytes of a listing that are made in one go


def answer(server: JobServer, peer: Peer, line: bytes) -> None:
    """Answer one text line; a long listing is left in ``peer.listing`` and sent as the peer reads it."""
    words = line.partition(b"\0")[0].split(b" ")
    command = words[0].lower()
    arguments = [word for word in words[1:] if word]
    if len(arguments) + 1 > MAX_WORDS:
        peer.send(b"ERR TOO_MANY_WORDS A+command+has+at+most+%d+words\r\n" % MAX_WORDS)
        server.hang_up(peer)
    elif command == b"status":
        peer.listing = _listing(_status_line(function) for function in list(server.functions.values()))
    elif command == b"prioritystatus":
        peer.listing = _listing(_priority_line(function) for function in list(server.functions.values()))
    elif command == b"workers":
        peer.listing = _listing(_peer_line(other) for other in list(server.peers))
    elif command == b"show" and arguments:
        _show(server, peer, arguments)
    elif command == b"version":
        peer.send(b"OK %b\n" % server.settings.version)
    elif command == b"getpid":
        peer.send(b"OK %d\n" % server.settings.process_id)
    elif command == b"verbose":
        peer.send(b"OK %b\n" % server.settings.verbosity)
    elif command == b"create":
        _create(server, peer, arguments)
    elif command == b"drop":
        _drop(server, peer, arguments)
    elif command == b"maxqueue":
        _maxqueue(server, peer, arguments)
    elif command == b"cancel" and len(arguments) > 1:
        _cancel(server, peer, arguments)
    else:
        peer.send(b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % words[0])


def _listing(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines in chunks, and the dot that ends them."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(chunk)
            chunk = []
            size = 0
    chunk.append(DOT)
    yield b"".join(chunk)


def _status_line(function: Function) -> bytes:
    return b"%b\t%d\t%d\t%d\n" % (function.name, function.total, function.running, function.workers)


def _priority_line(function: Function) -> bytes:
    # Delayed jobs have normal priority and count as waiting (section 4.2).
    normal = function.normal.count + function.delayed
    return b"%b\t%d\t%d\t%d\t%d\n" % (
        function.name,
        function.high.count,
        normal,
        function.low.count,
        function.workers,
    )


def _peer_line(peer: Peer) -> bytes:
    """``fd ip id : function ...``, last registered first."""
    registered = sorted(peer.list_abilities(), key=lambda ability: ability.order, reverse=True)
    abilities = b"".join([b" " + ability.function.name for ability in registered])
    return b"%d %b %b :%b\n" % (peer.fd, peer.host.encode(), peer.client_id or b"-", abilities)


def _show(server: JobServer, peer: Peer, arguments: list[bytes]) -> None:
    what = b" ".join(arguments).lower()
    if what == b"jobs":
        peer.listing = _listing(_job_lines(server))
    elif what == b"unique jobs":
        peer.listing = _listing(job.unique + b"\n" for job in server.jobs)
    else:
        peer.send(b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n")


def _job_lines(server: JobServer) -> Iterator[bytes]:
    """``handle, retries, ignore, queued``: ignored is a running job nobody waits for, queued means background."""
    for job in server.jobs:
        ignored = job.state == RUNNING and not job.background and job.listeners is None
        yield b"%b\t%d\t%d\t%d\n" % (server.handle(job.number), job.attempts, ignored, job.background)


def _create(server: JobServer, peer: Peer, arguments: list[bytes]) -> None:
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        _incomplete(peer, b"create")
    elif len(arguments[1]) > server.settings.max_function or (
        arguments[1] not in server.functions and len(server.functions) >= server.settings.max_functions
    ):
        peer.send(b"ERR CREATE_FUNCTION %b\r\n" % arguments[1])
    else:
        server.create_function(arguments[1])
        peer.send(OK)


def _drop(server: JobServer, peer: Peer, arguments: list[bytes]) -> None:
    """Drop a function without workers and running jobs; jobs that wait there are cancelled."""
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        _incomplete(peer, b"drop")
        return
    function = server.functions.get(arguments[1])
    if function is None:
        peer.send(b"ERR function not found\r\n")
    elif function.workers or function.running:
        peer.send(b"ERR there are still connected workers or executing clients\r\n")
    else:
        dropped = _waiting(server, function)
        for job in dropped:
            cancel(server, job)
        server.drop_function(function)
        server.notice("function_dropped", peer, {"function": _shown(function.name), "jobs": len(dropped)})
        peer.send(OK)


def _waiting(server: JobServer, function: Function) -> list[Job]:
    """The jobs of a function that wait: those in its lines, then those whose time has not come."""
    jobs: list[Job] = []
    for line in (function.high, function.normal, function.low):
        job = line.first
        while job is not None:
            jobs.append(job)
            job = job.next
    if function.delayed:
        server.effort += len(server.delayed.heap)
        later: dict[int, Job] = {}
        for _, number, _ in server.delayed.heap:
            job = server.jobs.get(number)
            if job is not None and job.function is function and job.state == DELAYED:
                later[number] = job
        jobs += [later[number] for number in sorted(later)]
    return jobs


def _maxqueue(server: JobServer, peer: Peer, arguments: list[bytes]) -> None:
    """One limit for all priorities, or those for high, normal and low; none at all lifts them (section 3.10)."""
    if not arguments:
        _incomplete(peer, b"maxqueue")
        return
    limits = [_limit(word) for word in arguments[1:]]
    if len(limits) == 1:
        limits = limits * 3
    limits += [0] * (3 - len(limits))
    high, normal, low = limits[0], limits[1], limits[2]
    server.set_limits(arguments[0], high, normal, low)
    fields: dict[str, object] = {"function": _shown(arguments[0]), "high": high, "normal": normal, "low": low}
    server.notice("limits_set", peer, fields)
    peer.send(OK)


def _limit(word: bytes) -> int:
    return min(int(word), 2**32) if word.isdigit() and len(word) < 20 else 0


def _cancel(server: JobServer, peer: Peer, arguments: list[bytes]) -> None:
    if len(arguments) != 2 or arguments[0].lower() != b"job":
        peer.send(b"ERR UNKNOWN_ERROR\r\n")
        return
    handle = arguments[1]
    number = parse_handle(handle, 0, len(handle), server.handle_start)
    job = server.jobs.get(number) if number >= 0 else None
    if job is None:
        peer.send(b"ERR UNKNOWN_JOB\r\n")
        return
    cancel(server, job)
    server.notice("job_cancelled", peer, {"handle": _shown(handle), "function": _shown(job.function.name)})
    peer.send(OK)


def _incomplete(peer: Peer, command: bytes) -> None:
    peer.send(b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%b\r\n" % command)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
