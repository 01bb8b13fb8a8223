"""Every metric of the job server by name, and what it means; docs/reference/metrics.md is made from these tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: all its samples have these labels. A counter's samples end in ``_total``, an info's in ``_info``."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def sample(self) -> str:
        """The name that its samples bear, where these are no histogram's."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


def _by_function(kind: Kind, rows: Mapping[str, tuple[str, str]], *labels: str) -> dict[str, Family]:
    return {key: Family(f"geartrain_{name}", kind, help, ("function", *labels)) for key, (name, help) in rows.items()}


COUNTERS: Final = _by_function(
    "counter",
    {
        "submitted": ("jobs_submitted", "New jobs."),
        "coalesced": ("jobs_coalesced", "Submissions that joined a job that was there, by their unique."),
        "refused": ("jobs_refused", "Submissions that were refused."),
        "started": ("jobs_started", "Jobs given to workers, each attempt by itself."),
        "lost": ("jobs_lost", "Attempts that were lost with their worker."),
        "completed": ("jobs_completed", "Jobs that succeeded."),
        "failed": ("jobs_failed", "Jobs that failed for good, those that took too long among them."),
        "timed_out": ("jobs_timed_out", "Jobs that failed since they took too long."),
        "cancelled": ("jobs_cancelled", "Jobs that were cancelled."),
        "abandoned": ("jobs_abandoned", "Foreground jobs dropped since no client waited for them any more."),
        "retried": ("jobs_retried", "Attempts that were followed by another, as the policy has it."),
        "expired": ("jobs_expired", "Jobs that had not begun in time."),
        "dropped": ("jobs_dropped", "Jobs that gave way to others in a full queue."),
        "buried": ("jobs_buried", "Jobs that became dead letters."),
        "revived": ("jobs_revived", "Dead letters that were tried again."),
        "stuck": (
            "watchdog_breaches",
            "Times that jobs were found waiting beside an idle worker, which must never be.",
        ),
        "results_kept": ("results_kept", "Results that were kept for later."),
        "results_too_large": ("results_too_large", "Results too large to be kept."),
        "result_hits": ("result_hits", "Submissions that were answered with a result that was kept."),
        "result_misses": ("result_misses", "Submissions for which no result had been kept."),
        "result_bytes": ("result_hit_bytes", "Bytes of the kept results that were given as answers."),
        "bytes_in": ("workload_bytes", "Bytes of the workloads of new jobs."),
        "bytes_out": ("output_bytes", "Bytes that workers have given back: results, and data before them."),
    },
    "priority",
)
"""What is counted for each function and priority, by its name in ``Counters``."""

HISTOGRAMS: Final = _by_function(
    "histogram",
    {
        "waiting": ("job_waiting_seconds", "How long jobs waited in a queue before each start."),
        "running": ("job_running_seconds", "How long jobs ran, each attempt by itself."),
        "total": ("job_total_seconds", "How long jobs took from submission to success or final failure."),
    },
    "priority",
)
"""Times for each function and priority, by their names in ``Counters``."""

WAITING: Final = Family("geartrain_jobs_waiting", "gauge", "Jobs that wait for a worker.", ("function", "priority"))

GAUGES: Final = _by_function(
    "gauge",
    {
        "delayed": ("jobs_delayed", "Jobs whose time has not come."),
        "blocked": ("jobs_blocked", "Jobs that wait for others of their key."),
        "running": ("jobs_running", "Jobs that run."),
        "dead": ("dead_letters", "Jobs that did not succeed, and are kept for somebody to look at."),
        "workers": ("workers", "Workers that are able to do it."),
        "busy": ("workers_busy", "Of the workers those that run a job of it."),
        "idle": ("workers_idle", "Of the workers those that sleep until there is a job."),
        "oldest_waiting": ("oldest_waiting_seconds", "How long the job that waits longest has waited; 0: none waits."),
        "paused": ("paused", "1 while no jobs of it are handed out."),
    },
)
"""What is true of each function now, by its name in ``FunctionView``."""

BUILD: Final = Family("geartrain_build", "info", "Which geartrain this is.", ("version", "core"))


def _of_server(kind: Kind, name: str, help: str, *labels: str) -> Family:
    return Family(f"geartrain_{name}", kind, help, labels)


CONNECTIONS: Final = _of_server("gauge", "connections", "Connections to the job server.")
CONNECTIONS_LIMIT: Final = _of_server("gauge", "connections_limit", "Connections that it takes at once.")
CONNECTED_WORKERS: Final = _of_server(
    "gauge",
    "connected_workers",
    "Connections of workers: all of them, those that run a job, those that sleep.",
    "state",
)
FUNCTIONS: Final = _of_server("gauge", "functions", "Functions that are known.")
JOBS: Final = _of_server("gauge", "jobs", "Jobs of all functions, by where they stand.", "state")
MEMORY: Final = _of_server("gauge", "memory_bytes", "Memory that jobs, functions and abilities take.")
MEMORY_LIMIT: Final = _of_server(
    "gauge", "memory_limit_bytes", "Memory at which more is refused (--max-memory); absent: no limit."
)
DRAINING: Final = _of_server(
    "gauge", "draining", "1 while the job server refuses submissions, since it is about to stop."
)
STORE_UP: Final = _of_server(
    "gauge", "store_up", "1 while the store takes what it is given; absent: jobs are not stored."
)
STORE_COMMITS: Final = _of_server("counter", "store_commits", "Batches that the store has committed.")
STORE_BATCH: Final = _of_server("histogram", "store_batch_jobs", "Jobs that each batch added, changed or removed.")
STORE_COMMIT_SECONDS: Final = _of_server("histogram", "store_commit_seconds", "How long the store took for each batch.")
STORE_REFUSALS: Final = _of_server("counter", "store_refused_commits", "Batches that the store has not taken.")
LOOP_LAG: Final = _of_server(
    "histogram", "loop_lag_seconds", "How much later than planned the event loop came to a call."
)
ITERATIONS: Final = _of_server(
    "counter", "iterations", "Iterations of the job server: turns of its event loop in which there was something to do."
)
WEBHOOKS: Final = _of_server(
    "counter",
    "webhooks",
    "Calls at the ends of jobs: delivered, failed for good, dropped since there were too many.",
    "outcome",
)
WEBHOOKS_PENDING: Final = _of_server(
    "gauge", "webhooks_pending", "Calls at the ends of jobs that have still to arrive."
)
EVENT_READERS: Final = _of_server("gauge", "event_readers", "Readers of the events of jobs over HTTP.")
LIVE_STREAMS: Final = _of_server("gauge", "live_streams", "Streams of the live overview over HTTP.")
HTTP_REFUSED: Final = _of_server(
    "counter", "http_connections_refused", "HTTP connections closed at once (--http-max-connections)."
)
FLEET_EPOCH: Final = _of_server(
    "gauge", "fleet_epoch", "Of a fleet: the id under which this job server writes; another after each return."
)
FLEET_STATE: Final = _of_server("gauge", "fleet_state", "1 for the state in which this member is.", "state")
FLEET_LEASE: Final = _of_server(
    "gauge", "fleet_lease_seconds", "For how long stored jobs are surely this member's; below 0: it is over."
)
FLEET_LEADER: Final = _of_server("gauge", "fleet_leader", "1 while this member makes the runs of schedules.")
FLEET_MEMBERS: Final = _of_server(
    "gauge", "fleet_members", "Members as this one sees them; of those that left or are dead the others have the jobs.",
    "state",
)  # fmt: skip
FLEET_ADOPTED: Final = _of_server("counter", "fleet_adopted_jobs", "Jobs of others that this member has taken over.")
FLEET_MOVED: Final = _of_server("counter", "fleet_moved_jobs", "Jobs that this member has sent to others.")
FLEET_FENCED: Final = _of_server("counter", "fleet_fenced", "Times that the others have taken this member for dead.")
FLEET_PULSES: Final = _of_server("counter", "fleet_pulses", "Times that the lease was renewed.")
FLEET_PULSE_SECONDS: Final = _of_server("gauge", "fleet_pulse_seconds", "How long that took the last time.")
START_TIME: Final = Family("process_start_time_seconds", "gauge", "When the job server started, as a Unix time.")
CPU: Final = Family("process_cpu_seconds", "counter", "Processor time of the job server, user and system together.")
RESIDENT: Final = Family("process_resident_memory_bytes", "gauge", "Memory of the whole process.")

SERVER_WIDE: Final = (
    BUILD, CONNECTIONS, CONNECTIONS_LIMIT, CONNECTED_WORKERS, FUNCTIONS, JOBS, MEMORY, MEMORY_LIMIT, DRAINING, STORE_UP,
    STORE_COMMITS, STORE_REFUSALS, STORE_BATCH, STORE_COMMIT_SECONDS, LOOP_LAG, ITERATIONS, WEBHOOKS, WEBHOOKS_PENDING,
    EVENT_READERS, LIVE_STREAMS, HTTP_REFUSED, START_TIME, CPU, RESIDENT,
)  # fmt: skip
OF_FLEETS: Final = (
    FLEET_EPOCH, FLEET_STATE, FLEET_LEASE, FLEET_LEADER, FLEET_MEMBERS, FLEET_ADOPTED, FLEET_MOVED, FLEET_FENCED,
    FLEET_PULSES, FLEET_PULSE_SECONDS,
)  # fmt: skip
OF_FUNCTIONS: Final = (*COUNTERS.values(), *HISTOGRAMS.values(), WAITING, *GAUGES.values())
FAMILIES: Final = (*SERVER_WIDE, *OF_FLEETS, *OF_FUNCTIONS)
