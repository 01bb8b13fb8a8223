"""The assigned job: what a worker's function is given, and its way to speak to those who wait for it."""

from __future__ import annotations

from collections.abc import Callable

from geartrain.errors import GeartrainError
from geartrain.wire.packets import WORK_DATA, WORK_STATUS, WORK_WARNING
from geartrain.wire.parser import Packet


class AssignedJob:
    """A job that a job server gave to this worker.

    ``workload`` is what the client sent and ``unique`` the name it gave to the job (empty for none); ``handle`` is the
    job server's name for it; ``function`` is the name under which the function was declared. ``reducer`` is the
    reducing function's name of a map/reduce job, which only a worker made with ``reducers=True`` is told.

    ``lost`` becomes true when the connection that brought the job has ended: the job server has given the job to
    another worker by then, and whatever this one says goes nowhere. A long function may look at it and stop.
    ``error`` says why a job can't be run; such a job fails with it, and no function sees it.

    ``traceparent`` says where it belongs in a distributed trace, as W3C writes it; empty, if nobody has said so, or if
    this worker has no ``geartrain.worker.tracing.Tracing`` that wants to know.

    Made by hand a job needs no job server, so that a function can be called in a test, as in
    ``reverse(AssignedJob(b"hello"))``; what it says on its way is then kept in ``sent``.
    """

    __slots__ = ("error", "function", "handle", "lost", "post", "reducer", "sent", "traceparent", "unique", "workload")

    def __init__(
        self,
        workload: bytes = b"",
        *,
        function: str = "",
        handle: bytes = b"",
        unique: bytes = b"",
        reducer: bytes = b"",
    ) -> None:
        self.workload = workload
        self.function = function
        self.handle = handle
        self.unique = unique
        self.reducer = reducer
        self.traceparent = b""
        self.lost = False
        self.error: GeartrainError | None = None
        self.sent: list[Packet] = []
        # How a packet about this job leaves: its type and its arguments behind the handle. Set by the worker.
        self.post: Callable[..., None] = self._keep

    def progress(self, numerator: int, denominator: int) -> None:
        """Tell how far the job is: ``numerator`` of ``denominator`` parts are done (WORK_STATUS, section 3.7).

        The job server remembers the last one for those who ask.
        """
        self.post(WORK_STATUS, b"%d" % numerator, b"%d" % denominator)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send a part of the result while the job goes on (WORK_DATA, section 3.7)."""
        self.post(WORK_DATA, _bytes_of(data))

    def warn(self, data: bytes | bytearray | memoryview) -> None:
        """Send a warning; the job goes on (WORK_WARNING, section 3.7)."""
        self.post(WORK_WARNING, _bytes_of(data))

    def _keep(self, type: int, *arguments: bytes) -> None:
        self.sent.append(Packet(type, (self.handle, *arguments)))

    def __repr__(self) -> str:
        return f"<AssignedJob {self.handle.decode(errors='replace')} of {self.function}>"


def _bytes_of(data: bytes | bytearray | memoryview) -> bytes:
    """As ``bytes``, which would take a number as well."""
    return b"".join((data,))
