"""``/api/v1/history``: what has happened over time, as charts draw it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from geartrain.web.api.asking import Model, Reader, face_of, problems
from geartrain.web.names import to_name
from geartrain.web.problems import Problem
from geartrain.web.series import NAMES

MAX_POINTS: Final = 1000
router: Final = APIRouter(tags=["history"])
_SPANS: Final = {"15m": 900, "6h": 6 * 3600, "30d": 30 * 86400}


class History(BaseModel):
    """Series over the same intervals."""

    function: str | None = Field(description="Of which function it is; null: of all together")
    folded: bool = Field(description="Whether the function has no series of its own: `(other)` has its numbers")
    step: int = Field(description="Seconds of an interval", examples=[60])
    times: list[int] = Field(description="When the intervals begin")
    series: dict[str, list[float | None]] = Field(
        description="By name a value for each interval: how often it happened, the gauge at its end, or a percentile "
        "in seconds. null: it is not known, or there was no job",
        examples=[{"submitted": [12, 40, None], "waiting_time_p95": [0.02, 0.3, None]}],
    )


class HistoryFilters(Model):
    """What is meant."""

    function: str | None = Field(None, description="A function, or `(other)`; without it all together")
    span: Literal["15m", "6h", "30d"] = Field("15m", description="How far back")
    series: list[str] = Field([], description=f"Some of {', '.join(NAMES)}; with commas between, or each on its own")
    points: int = Field(300, ge=1, le=MAX_POINTS, description="The most values that are wanted of each series")


@router.get(
    "/history",
    operation_id="show_history",
    summary="Show what has happened over time",
    response_model=History,
    responses=problems(404),
)
async def show_history(request: Request, _: Reader, filters: Annotated[HistoryFilters, Query()]) -> History:
    """Counts, gauges and percentiles of a function, or of all together."""
    history = face_of(request).history
    names = [name for text in filters.series or NAMES for name in text.split(",")]
    for name in names:
        if name not in NAMES:
            raise Problem(422, "invalid", f"series has {name!r}: there are {', '.join(NAMES)}")
    function = None if filters.function is None else to_name(filters.function)
    if function is not None and not history.knows(function):
        raise Problem(404, "unknown-function", f"Nothing is known of a function {filters.function!r}")
    until = history.until
    series: dict[str, list[float | None]] = {}
    for name in dict.fromkeys(names):
        told = history.series([name], function, _SPANS[filters.span], filters.points, until)
        series |= told["values"]
        await asyncio.sleep(0)  # a month takes some milliseconds
    folded = function is not None and history.is_folded(function)
    return History(function=filters.function, folded=folded, step=told["step"], times=told["times"], series=series)
