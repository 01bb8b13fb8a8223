"""The client's side: run jobs on job servers and wait for them, blocking or on asyncio; and administer the servers."""

from geartrain.client.admin import AdminClient, ConnectedPeer, FunctionStatus, KnownJob, PriorityStatus
from geartrain.client.async_client import AsyncClient
from geartrain.client.async_job import AsyncJob
from geartrain.client.client import Client
from geartrain.client.dead_letter import DeadLetter
from geartrain.client.fleet import FleetAdoption, FleetHistory, FleetMember
from geartrain.client.function_details import FunctionDetails
from geartrain.client.job import SubmittedJob
from geartrain.client.job_details import JobAttempt, JobDetails
from geartrain.client.policy import FunctionPolicy
from geartrain.client.request import JobStatus
from geartrain.client.schedule import KnownSchedule, ScheduleDetails
from geartrain.client.submission import (
    DataEvent,
    JobEvent,
    JobHandle,
    Priority,
    SentAgainEvent,
    StatusEvent,
    WarningEvent,
    When,
)

__all__ = [
    "AdminClient",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "ConnectedPeer",
    "DataEvent",
    "DeadLetter",
    "FleetAdoption",
    "FleetHistory",
    "FleetMember",
    "FunctionDetails",
    "FunctionPolicy",
    "FunctionStatus",
    "JobAttempt",
    "JobDetails",
    "JobEvent",
    "JobHandle",
    "JobStatus",
    "KnownJob",
    "KnownSchedule",
    "Priority",
    "PriorityStatus",
    "ScheduleDetails",
    "SentAgainEvent",
    "StatusEvent",
    "SubmittedJob",
    "WarningEvent",
    "When",
]
