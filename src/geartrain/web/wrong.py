"""What somebody should look at: the functions and the states of the job server that are not as they should be."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Kind = Literal[
    "no_worker",
    "stuck",
    "queue_full",
    "retry_storm",
    "paused_with_jobs",
    "dead_growing",
    "store_down",
    "memory_short",
    "draining",
]


class Remedy(BaseModel):
    """Where something can be done about it."""

    text: str = Field(examples=["Show the function"])
    path: str = Field(description="On this server", examples=["/dashboard/functions/resize"])


class Wrong(BaseModel):
    """One thing that is wrong."""

    kind: Kind
    function: str | None = Field(description="null: it concerns the whole job server")
    count: int = Field(description="Of the jobs that are concerned; 0: it is not about jobs")
    since: float | None = Field(description="When it was seen first, or began, as a Unix time; null: nobody knows")
    text: str = Field(description="A sentence that says what is wrong and why")
    remedy: Remedy
