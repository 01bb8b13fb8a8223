"""Which of all jobs are meant: what listings and orders to many jobs choose by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from geartrain.web.api.asking import Model
from geartrain.web.names import to_name

if TYPE_CHECKING:
    from geartrain.jobserver.snapshot import JobView

Priority = Literal["high", "normal", "low"]
State = Literal["queued", "blocked", "delayed", "running", "dead"]
PRIORITIES: Final = ("high", "normal", "low")


class JobSelection(Model):
    """Which jobs are meant: those of which all of this is true."""

    state: State | None = None
    function: str | None = None
    unique: str | None = None
    priority: Priority | None = None
    older_than: float | None = Field(None, ge=0, description="Seconds since it was created")
    handle: str | None = Field(None, description="How the handle begins")
    attempt: int | None = Field(None, ge=0, lt=2**31, description="So many attempts at least did not succeed")
    client: str | None = Field(None, min_length=1, description="Part of the id or host of a client that waits for it")
    worker: str | None = Field(None, min_length=1, description="Part of the id or host of the worker that runs it")

    def chosen(self, wall: float) -> Chosen:
        """What is compared with each job."""
        return Chosen(self, wall)


class Chosen:
    """A selection as it is compared; ``wall`` is the Unix time."""

    def __init__(self, selection: JobSelection, wall: float) -> None:
        self.state: str = selection.state or ""
        self.function = _name(selection.function)
        self.unique = _name(selection.unique)
        self.priority = None if selection.priority is None else PRIORITIES.index(selection.priority)
        self.until = None if selection.older_than is None else wall - selection.older_than
        self.handle = to_name(selection.handle or "")
        self.attempts = selection.attempt or 0
        self.client = _name(selection.client)
        self.worker = _name(selection.worker)

    def means(self, view: JobView) -> bool:
        """Whether a job is one of them."""
        if (
            (self.state and view.state != self.state)
            or (self.function is not None and view.function != self.function)
            or (self.unique is not None and view.unique != self.unique)
            or (self.priority is not None and view.priority != self.priority)
            or (self.until is not None and view.created > self.until)
            or view.attempts < self.attempts
            or not view.handle.startswith(self.handle)
        ):
            return False
        if self.worker is not None:
            worker = view.worker
            if worker is None or self.worker not in worker.shown_name:
                return False
        return self.client is None or view.is_wanted_by(self.client)


def _name(text: str | None) -> bytes | None:
    return None if text is None else to_name(text)
