"""Metrics of a worker for Prometheus, as middleware; needs the package prometheus-client.

    worker = Worker(middleware=[JobLog(), Metrics()])
    prometheus_client.start_http_server(9100)

Processes that a supervisor started each count for themselves: set PROMETHEUS_MULTIPROC_DIR, as prometheus-client
describes it, to have them added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geartrain.errors import Retry
from geartrain.worker.job import AssignedJob
from geartrain.worker.middleware import Middleware

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)  # seconds


class Metrics(Middleware):
    """Counts jobs by function and outcome, times them, and tells how many run now.

    An outcome is ``done``, ``failed`` or, where the function asked for it, ``retry``.

    ``registry`` is the one to register with, prometheus-client's own by default; ``buckets`` are the bounds of the
    histogram of seconds.
    """

    def __init__(self, registry: Any = None, buckets: Sequence[float] = BUCKETS) -> None:
        try:
            import prometheus_client
        except ImportError:
            raise ImportError("Metrics needs the package prometheus-client: pip install prometheus-client") from None
        where = {"registry": registry} if registry is not None else {}
        self._jobs = prometheus_client.Counter(
            "geartrain_worker_jobs", "Jobs that ended.", ["function", "outcome"], **where
        )
        self._seconds = prometheus_client.Histogram(
            "geartrain_worker_job_seconds", "How long jobs ran.", ["function"], buckets=buckets, **where
        )
        self._running = prometheus_client.Gauge(
            "geartrain_worker_jobs_running", "Jobs that run now.", ["function"], multiprocess_mode="livesum", **where
        )

    def before(self, job: AssignedJob) -> None:
        self._running.labels(job.function).inc()

    def after(self, job: AssignedJob, seconds: float) -> None:
        self._ended(job, "done", seconds)

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        self._ended(job, "retry" if isinstance(error, Retry) else "failed", seconds)

    def _ended(self, job: AssignedJob, outcome: str, seconds: float) -> None:
        self._running.labels(job.function).dec()
        self._jobs.labels(job.function, outcome).inc()
        self._seconds.labels(job.function).observe(seconds)
