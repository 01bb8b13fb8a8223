"""Workers: what grabs jobs from job servers and runs them."""

from geartrain.worker.async_worker import AsyncWorker
from geartrain.worker.failure import ArgumentsError, SoftTimeLimit
from geartrain.worker.job import AssignedJob
from geartrain.worker.middleware import JobLog, Middleware
from geartrain.worker.session import WorkerSession
from geartrain.worker.worker import Worker

__all__ = [
    "ArgumentsError",
    "AssignedJob",
    "AsyncWorker",
    "JobLog",
    "Middleware",
    "SoftTimeLimit",
    "Worker",
    "WorkerSession",
]
