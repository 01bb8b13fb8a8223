"""The worker's side: functions that job servers send jobs for, blocking or on asyncio, in one process or many.

declaration, functions, calls, hints, encoding   what ``@worker.function()`` makes, and how values travel
policy                                           what it asks job servers to keep to
batch_function, batch                            what ``@worker.batch()`` makes, and its jobs on their way
session, slots, job                              the conversation with one job server, without any I/O
worker, job_thread, connection                   the blocking worker: threads with connections of their own
async_worker, async_connection, threads          the asyncio worker
attempt, fork, soft_limit, failure, middleware, metrics, tracing   around a job
once                                                      what is told once
pool, heartbeat, signals, readiness, reload               processes and their supervisor
"""

from geartrain.worker.async_worker import AsyncWorker
from geartrain.worker.job import AssignedJob
from geartrain.worker.middleware import JobLog, Middleware
from geartrain.worker.session import WorkerSession
from geartrain.worker.worker import Worker

__all__ = [
    "AssignedJob",
    "AsyncWorker",
    "JobLog",
    "Middleware",
    "Worker",
    "WorkerSession",
]
