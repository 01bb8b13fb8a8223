"""Watching single jobs: whoever watches one is told what its clients are told, and more, without being one.

A watch begins with a live job and ends with the job's last event. It outlives lost workers, retries and pauses; a job
that becomes a dead letter has had its last event, and if it is tried again it can be watched again.

One watcher may be told of the last events of all jobs whose policy names a webhook (``JobServer.watch_ends``); of those
that are tried again after their death it is told at each end.
"""

from __future__ import annotations

from typing import Final, Protocol

# What a watcher is told, with what data.
ASSIGNED: Final = b"assigned"  # which attempt begins, as a decimal number
DATA: Final = b"data"  # of WORK_DATA
WARNING: Final = b"warning"  # of WORK_WARNING
STATUS: Final = b"status"  # numerator/denominator, two decimal numbers
RETRY: Final = b"retry"  # why the attempt did not succeed, a word of ``policy.REASONS``; another one follows
# Its last event is one of these.
COMPLETED: Final = b"completed"  # the result
FAILED: Final = b"failed"  # why, as far as it is known
CANCELLED: Final = b"cancelled"
DEAD: Final = b"dead"  # why, as far as it is known: it is a dead letter now
DROPPED: Final = b"dropped"  # a better or newer job has taken its place in a full queue
ABANDONED: Final = b"abandoned"  # no client waits for it any more
REFUSED: Final = b"refused"  # the store has not taken it, so it was never accepted
MOVED: Final = b"moved"  # it goes on at another job server of the fleet
ENDS: Final = (COMPLETED, FAILED, CANCELLED, DEAD, DROPPED, ABANDONED, REFUSED, MOVED)

MAX_WATCHES: Final = 100_000  # of all jobs
MAX_WATCHERS: Final = 16  # of one job
WATCH_COST: Final = 400  # bytes of memory


class Watcher(Protocol):
    """Who watches a job."""

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        """What happens to the job of this number.

        Called in the middle of a rule: it takes note and returns, and does nothing to the job server but to read it, to
        ``unwatch``, and to keep records, which are committed with what the rule changes. If it raises, it is told no
        more of this job.
        """
