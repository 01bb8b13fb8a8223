"""``/api/v1/history``: what has happened over time, as charts draw it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from geartrain.jobserver.histogram import BOUNDS
from geartrain.web.api.asking import Model, Reader, face_of, problems
from geartrain.web.names import to_name
from geartrain.web.problems import Problem
from geartrain.web.series import NAMES

if TYPE_CHECKING:
    from geartrain.web.history import History as Numbers

MAX_POINTS: Final = 1000
MAX_FUNCTIONS: Final = 50  # in one answer
MAX_POINTS_EACH: Final = 100  # of several functions
MAX_TOLD: Final = 16  # answers that are kept while they hold
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


class FunctionSeries(BaseModel):
    """Series of one of several functions."""

    function: str
    folded: bool = Field(description="Whether it has no series of its own: `(other)` has its numbers")
    series: dict[str, list[float | None]] = Field(description="As of one function alone")


class Histories(BaseModel):
    """Series of several functions over the same intervals."""

    step: int = Field(description="Seconds of an interval", examples=[20])
    times: list[int] = Field(description="When the intervals begin")
    functions: list[FunctionSeries] = Field(description="In the order in which they were asked for")


class HeatMap(BaseModel):
    """How long jobs have run: how many of each interval by the buckets of their times."""

    function: str | None = Field(description="Of which function it is; null: of all together")
    folded: bool = Field(description="Whether the function has no history of its own: `(other)` has its numbers")
    step: int = Field(description="Seconds of an interval", examples=[60])
    times: list[int] = Field(description="When the intervals begin")
    bounds: list[float] = Field(
        description="Seconds: the longest time of each bucket; a last bucket has all that took longer",
        examples=[list(BOUNDS)],
    )
    counts: list[list[int] | None] = Field(
        description="For each interval the number of attempts that ended in it, by bucket, one more than `bounds`; "
        "null: it is not known. Older ones are rounded to four bits"
    )


class _Spanned(Model):
    span: Literal["15m", "6h", "30d"] = Field("15m", description="How far back")


class _Filters(_Spanned):
    function: str | None = Field(None, description="A function, or `(other)`; without it all together")


class HeatFilters(_Filters):
    """What is meant."""

    points: int = Field(100, ge=1, le=MAX_POINTS, description="The most intervals that are wanted")


class _Named(_Spanned):
    series: list[str] = Field([], description=f"Some of {', '.join(NAMES)}; with commas between, or each on its own")

    @property
    def names(self) -> list[str]:
        """Each series that is meant, once. Raises Problem."""
        names = list(dict.fromkeys(name for text in self.series or NAMES for name in text.split(",")))
        for name in names:
            if name not in NAMES:
                raise Problem(422, "invalid", f"series has {name!r}: there are {', '.join(NAMES)}")
        return names


class FunctionsFilters(_Named):
    """What is meant."""

    function: list[str] = Field(
        [], max_length=MAX_FUNCTIONS, description="Functions, each on its own; what is not known is left out"
    )
    points: int = Field(45, ge=1, le=MAX_POINTS_EACH, description="The most values that are wanted of each series")


class HistoryFilters(_Filters, _Named):
    """What is meant."""

    points: int = Field(300, ge=1, le=MAX_POINTS, description="The most values that are wanted of each series")


@router.get(
    "/history",
    operation_id="show_history",
    summary="Show what has happened over time",
    response_model=History,
    responses=problems(404),
)
async def show_history(request: Request, _: Reader, filters: Annotated[HistoryFilters, Query()]) -> Response:
    """Counts, gauges and percentiles of a function, or of all together."""
    history = face_of(request).history
    names = filters.names
    function = _function(history, filters)
    until = history.until
    question = (filters.span, filters.points, *names)
    if function is None:  # all who look at the dashboard ask the same
        since, end, told_before = history.told.get(question, (0, 0, b""))
        if since <= until < end:
            return Response(told_before, media_type="application/json")
    step, times = _intervals(history, filters.span, filters.points, until)
    series = await _series(history, names, function, filters.span, filters.points, until)
    folded = function is not None and history.is_folded(function)
    answer = History(function=filters.function, folded=folded, step=step, times=times, series=series)
    body = answer.model_dump_json().encode()
    if function is None:
        if len(history.told) >= MAX_TOLD:
            history.told.clear()
        history.told[question] = (until, (until // step + 1) * step, body)
    return Response(body, media_type="application/json")


@router.get(
    "/history/functions",
    operation_id="show_histories",
    summary="Show what has happened to several functions over time",
    response_model=Histories,
)
async def show_histories(request: Request, _: Reader, filters: Annotated[FunctionsFilters, Query()]) -> Response:
    """Counts, gauges and percentiles of each of the functions, over the same intervals."""
    history = face_of(request).history
    names, until = filters.names, history.until
    step, times = _intervals(history, filters.span, filters.points, until)
    functions = [
        FunctionSeries(
            function=text,
            folded=history.is_folded(name),
            series=await _series(history, names, name, filters.span, filters.points, until),
        )
        for text, name in ((text, to_name(text)) for text in dict.fromkeys(filters.function))
        if history.knows(name)
    ]
    answer = Histories(step=step, times=times, functions=functions)
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get(
    "/history/heat",
    operation_id="show_heat_map",
    summary="Show how long jobs have run over time",
    response_model=HeatMap,
    responses=problems(404),
)
async def show_heat_map(request: Request, _: Reader, filters: Annotated[HeatFilters, Query()]) -> HeatMap:
    """A heat map of the running times of a function, or of all together: attempts by interval and bucket."""
    history = face_of(request).history
    function = _function(history, filters)
    told = history.heat("running_time", function, _SPANS[filters.span], filters.points)
    folded = function is not None and history.is_folded(function)
    return HeatMap(function=filters.function, folded=folded, bounds=list(BOUNDS), **told)


def _intervals(history: Numbers, span: str, points: int, until: int) -> tuple[int, list[int]]:
    """The seconds of an interval, and when each begins."""
    told = history.series([], None, _SPANS[span], points, until)
    return told["step"], told["times"]


async def _series(
    history: Numbers, names: Sequence[str], function: bytes | None, span: str, points: int, until: int
) -> dict[str, list[float | None]]:
    """The values of each series."""
    series: dict[str, list[float | None]] = {}
    for name in names:
        series |= history.series([name], function, _SPANS[span], points, until)["values"]
        await asyncio.sleep(0)  # a month takes some milliseconds
    return series


def _function(history: Numbers, filters: _Filters) -> bytes | None:
    """The function that is meant. Raises Problem."""
    function = None if filters.function is None else to_name(filters.function)
    if function is not None and not history.knows(function):
        raise Problem(404, "unknown-function", f"Nothing is known of a function {filters.function!r}")
    return function
