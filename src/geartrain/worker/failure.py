"""What clients are told about a job that did not end well."""

from __future__ import annotations

import traceback

from geartrain.errors import ArgumentsError, JobFailedError, JobRaisedError, PacketTooLargeError, Verdict

_OWN_MODULES = __name__.rpartition(".")[0] + "."


def failure_text(error: BaseException) -> bytes | None:
    """The text for WORK_EXCEPTION, or None where a bare WORK_FAIL is meant.

    A function says the latter by raising JobFailedError or a verdict without a reason, and a text of its own choice by
    JobRaisedError or a verdict with one. Any other
    exception is told with its traceback, without the frames that are the worker's own.
    """
    if isinstance(error, JobRaisedError):
        return error.data
    if isinstance(error, JobFailedError):
        return None
    if isinstance(error, Verdict):
        return error.text.encode("utf-8", "backslashreplace") or None
    if isinstance(error, ArgumentsError):
        return str(error).encode("utf-8", "backslashreplace")  # it is the client's mistake, not the function's
    if isinstance(error, PacketTooLargeError):
        return f"the worker can't take this job: {error}".encode("utf-8", "backslashreplace")
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_OWN_MODULES):
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames)
    return "".join(lines).strip().encode("utf-8", "backslashreplace")
