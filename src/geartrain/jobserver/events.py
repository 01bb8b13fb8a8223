"""What an operator may want to know of the job server: each event with its level and its meaning.

The job server leaves events with their fields (``State.event``); the driver writes them to the log by this table.
"""

from __future__ import annotations

from typing import Final

INFO: Final = "INFO"
WARNING: Final = "WARNING"
ERROR: Final = "ERROR"

EVENTS: Final[dict[str, tuple[str, str]]] = {
    "dead_letter_unstored": (ERROR, "the store has not taken a dead letter; it is kept in memory alone"),
    "dead_letters_full": (WARNING, "a function has more dead letters than its policy keeps; the oldest is gone"),
    "drain_ordered": (INFO, "`drain`: the job server drains, and stops then"),
    "fleet_drain": (INFO, "`fleet drain`: a member is to give away what waits there, or that is `off` again"),
    "fleet_forget": (INFO, "`fleet forget`: a member is taken for dead, or listed no more"),
    "foreign_protocol": (
        WARNING,
        "a connection began with HTTP, TLS, a proxy's header or the like; it is closed, and nothing of it was executed",
    ),
    "function_dropped": (INFO, "`drop function`: the function and its waiting jobs are gone"),
    "function_paused": (INFO, "`pause`: none of its jobs is handed out"),
    "function_resumed": (INFO, "`resume`"),
    "job_cancelled": (INFO, "`cancel job`"),
    "job_dead": (WARNING, "a job has not succeeded, and is kept as a dead letter"),
    "job_purged": (INFO, "`dead purge`: a dead letter is kept no longer"),
    "job_retried": (INFO, "`retry` or `dead retry`: a job that was dead or delayed waits in its queue"),
    "job_stuck": (ERROR, "a job waited beside an idle worker, which has been woken: please report it, with this line"),
    "job_timed_out": (
        INFO,
        "a job ran longer than its worker's or its policy's time limit; it has failed, or is tried again",
    ),
    "lease_holds": (INFO, "the fleet's database answers again in time; what is stored is handed out as before"),
    "lease_over": (
        WARNING,
        "the lease in the fleet could not be renewed in time; nothing that is stored is handed out until it is",
    ),
    "limit_in_seconds": (
        WARNING,
        "a worker set a time limit below 1000 milliseconds; it counts as one second: did it mean seconds?",
    ),
    "limit_unreadable": (WARNING, "a worker set a time limit that is no number; it has the function without one"),
    "limits_set": (INFO, "`maxqueue`"),
    "malformed_packet": (INFO, "a packet lacks arguments; its sender got an ERROR"),
    "memory_full": (WARNING, "there is no room for what a peer sent; it got QUEUE_ERROR"),
    "packet_too_slow": (WARNING, "a half-sent packet did not come whole in time; the connection is closed"),
    "peer_aborted": (WARNING, "a peer does not read what it gets; its connection is dropped with what waited for it"),
    "peer_disconnected": (INFO, "`disconnect`: a connection was closed; jobs that it ran wait again"),
    "policy_set": (INFO, "`policy set`: the policy of a function, or of those that a pattern means, as it is now"),
    "policy_unreadable": (ERROR, "a policy that was kept can't be read; its functions are without it"),
    "policy_unset": (INFO, "`policy unset`"),
    "report_too_large": (WARNING, "a worker's report is above `--max-packet`; its job failed, and the worker goes on"),
    "request_refused": (WARNING, "a peer asked for what it has no right to; it got an ERROR"),
    "retries_used_up": (WARNING, "a job has lost as many workers as it may, and failed"),
    "store_back": (INFO, "the store answers again; submissions are taken as before"),
    "store_hangs": (ERROR, "the store does not answer; what waited for it is refused or put back"),
    "stream_broken": (WARNING, "a peer sent what is no packet; the connection is closed"),
    "unknown_packet": (INFO, "a packet of a type that does not exist; its sender got an ERROR"),
    "verdict_unreadable": (WARNING, "a worker said of a failure what can't be read; the job has just failed"),
    "watcher_failed": (
        ERROR,
        "what watches a job in this process has raised, and is told no more of it: please report it, with this line",
    ),
    "worker_lost": (WARNING, "a job has lost its second worker or a later one; it waits before the next try"),
    "workload_unreadable": (ERROR, "the store has lost a job's workload; the job failed"),
}
