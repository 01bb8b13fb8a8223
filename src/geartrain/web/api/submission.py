"""``POST /api/v1/jobs``: submit a job, in JSON or as mere bytes, and wait for its result or not."""

from __future__ import annotations

import base64
import binascii
import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator
from starlette.responses import JSONResponse, Response

from geartrain.client.command import quoted
from geartrain.web.api.asking import Model, ask, face_of, identity_of, now, problems
from geartrain.web.api.content import BYTES, JSON, Content, answer, content
from geartrain.web.api.entrance import PREFIX, is_json
from geartrain.web.api.job_selection import Priority
from geartrain.web.api.jobs import wants_bytes
from geartrain.web.names import to_name
from geartrain.web.problems import Problem
from geartrain.web.submitting import Outcome, RefusedError
from geartrain.wire.packets import WORK_COMPLETE, WORK_EXCEPTION
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.web.face import Face

router: Final = APIRouter(tags=["jobs"])


class Hook(Model):
    """Who is told of a job's end."""

    url: str = Field(max_length=2000)
    secret: str | None = Field(default=None, min_length=1, max_length=1000, repr=False)


_HOOK_SCHEMA: Final = {
    "anyOf": [
        {"type": "string", "maxLength": 2000},
        {
            "type": "object",
            "required": ["url"],
            "properties": {
                "url": {"type": "string", "maxLength": 2000},
                "secret": {"type": "string", "minLength": 1, "maxLength": 1000},
            },
            "additionalProperties": False,
        },
        {"type": "null"},
    ]
}


def _as_hook(given: Any) -> Any:
    return {"url": given} if isinstance(given, str) else given


class Parameters(Model):
    """How a job is submitted. For mere bytes they stand in the query."""

    function: str = Field(min_length=1, description="Who is to run it", examples=["resize"])
    unique: str = Field("", description="While a job of this unique lives, or its result is kept, it is the same job")
    priority: Priority = Field("normal", description="Of the jobs that wait those of higher priority run first")
    background: bool = Field(False, description="Answer with the handle at once, and do not wait for the result")
    delay: float | None = Field(None, ge=0, lt=2**31, description="Seconds until it may run; it is a background job")
    at: float | None = Field(
        None, ge=0, lt=2**40, description="The Unix time from which it may run, instead of `delay`"
    )
    timeout: float | None = Field(None, gt=0, description="Seconds to wait for the result; --http-timeout at most")
    webhook: Annotated[Hook | None, BeforeValidator(_as_hook), WithJsonSchema(_HOOK_SCHEMA)] = Field(
        None,
        description="A URL that is told of the end of a background job; in JSON perhaps with a secret for signatures",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.delay is not None and self.at is not None:
            raise ValueError("write either delay or at")
        is_later = self.delay is not None or self.at is not None
        if is_later and "background" in self.model_fields_set and not self.background:
            raise ValueError("a job for later is a background job: leave background out, or write true")
        if is_later and self.priority != "normal":
            raise ValueError(f"priority is {self.priority!r}: a job for later has normal priority")
        self.background = self.background or is_later
        if self.webhook is not None and not self.background:
            raise ValueError("webhook: only a background job has one; write background: true")
        for name in ("function", "unique"):
            if b"\0" in to_name(getattr(self, name)):
                raise ValueError(f"{name} holds a NUL, which no packet can carry")
        return self

    @property
    def due(self) -> float:
        """The Unix time from which it may run, in whole seconds; 0: at once."""
        if self.delay is not None:
            return math.ceil(now() + self.delay)
        return math.ceil(self.at or 0)


class Submission(Parameters):
    """A job in JSON. Its workload is `workload`, `workload_base64` or `json`, or empty."""

    workload: str | None = Field(None, description="The workload as text", examples=["cat.png"])
    workload_base64: str | None = Field(None, description="The workload as any bytes")
    value: Any = Field(None, alias="json", description="Any JSON; its text is the workload")

    @model_validator(mode="after")
    def _check_workload(self) -> Self:
        given = [name for name in ("workload", "workload_base64") if getattr(self, name) is not None]
        if len(given) + self.has_value > 1:
            raise ValueError("write one of workload, workload_base64 and json")
        self.bytes()
        return self

    @property
    def has_value(self) -> bool:
        return "value" in self.model_fields_set

    def bytes(self) -> bytes:
        """The workload. Raises ValueError."""
        if self.workload is not None:
            return self.workload.encode()
        if self.workload_base64 is not None:
            try:
                return base64.b64decode(self.workload_base64, validate=True)
            except binascii.Error as error:
                raise ValueError(f"workload_base64 is no base64: {error}") from None
        if not self.has_value:
            return b""
        try:
            return json.dumps(self.value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except RecursionError:
            raise ValueError("json is nested too deeply") from None


_MEMBERS: Final = frozenset(field.alias or name for name, field in Submission.model_fields.items())


class Created(BaseModel):
    """A background job that is kept."""

    handle: str = Field(examples=["H:here:7"])
    location: str = Field(description="Where it is told about", examples=["/api/v1/jobs/H:here:7"])
    webhook: bool | None = Field(
        description="Whether the URL will be told; false: the job has ended, or there is no room. null: none was named"
    )


class Completed(BaseModel):
    """A foreground job that has succeeded."""

    handle: str
    state: Literal["completed"] = "completed"
    result: Content = Field(description="All that its worker has sent, data before the result")
    warnings: list[Content]


def _parameters() -> list[dict[str, Any]]:
    """The same as parameters of the query, where a webhook is a URL alone: a secret does not stand in one."""
    schemas = Parameters.model_json_schema()["properties"]
    schemas["webhook"] = {**schemas["webhook"], "anyOf": [*_HOOK_SCHEMA["anyOf"][:1], *_HOOK_SCHEMA["anyOf"][2:]]}
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": schema,
            "description": f"For mere bytes. {schema.get('description', '')}",
        }
        for name, schema in schemas.items()
    ]


@router.post(
    "/jobs",
    operation_id="submit_job",
    summary="Submit a job",
    response_model=Completed,
    responses={
        200: {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}},
        202: {"model": Created, "description": "A background job"},
        **problems(400, 408, 413, 500, 502, 503, 504),
    },
    openapi_extra={
        "parameters": _parameters(),
        "requestBody": {
            "required": False,
            "content": {
                JSON: {"schema": Submission.model_json_schema()},
                BYTES: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
)
async def submit_job(request: Request) -> Response:
    """In JSON, or the workload as the body with the parameters in the query.

    A foreground job is waited for; with `Accept: application/octet-stream` the answer is its result alone. It is gone
    when the client goes, or after its `timeout`. Who gives a `unique` may ask again after a broken connection: as long
    as the job lives, or its result is kept under a policy `results`, the same unique means the same job.
    """
    asked, workload = await _read(request)
    face = face_of(request)
    function = to_name(asked.function)
    identity_of(request).need("submit", function)
    try:
        if asked.background:
            return await _in_background(request, face, asked, function, workload)
        return await _and_wait(request, face, asked, function, workload)
    except RefusedError as error:
        raise error.problem() from None


async def _read(request: Request) -> tuple[Parameters, bytes]:
    """What is asked for, and the workload. Raises RequestValidationError, Problem."""
    body = await request.body()
    query: dict[str, Any] = dict(request.query_params)
    try:
        if not is_json(request.scope):
            return Parameters.model_validate(query), body
        try:
            given = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Problem(400, "not-json", f"The body is not JSON: {error}; send bytes as {BYTES}") from None
        if not isinstance(given, dict):
            raise Problem(422, "invalid", 'The body is to be a JSON object, such as {"function": "resize"}')
        unknown = [key for key in given if key not in _MEMBERS]
        for key in unknown[20:]:  # the first ones are told
            del given[key]
        submission = Submission.model_validate({**query, **given})
        return submission, submission.bytes()
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from None


async def _in_background(request: Request, face: Face, asked: Parameters, function: bytes, workload: bytes) -> Response:
    webhook = _Webhook(face, asked.webhook) if asked.webhook is not None else None
    handle = await face.submitting.submit(
        function,
        to_name(asked.unique),
        workload,
        priority=asked.priority,
        due=asked.due,
        on_new=_nothing if webhook is None else webhook.attach,
        traceparent=request.headers.get("traceparent", ""),
    )
    if webhook is not None:
        await webhook.see_to(request, handle)
    shown = as_text(handle)
    created = Created(
        handle=shown, location=f"{PREFIX}/jobs/{shown}", webhook=None if webhook is None else webhook.is_attached
    )
    return JSONResponse(created.model_dump(), 202, {"Location": created.location})


class _Webhook:
    """What is told of a job's end. Raises Problem for a URL that would not be called."""

    def __init__(self, face: Face, hook: Hook) -> None:
        self._webhooks = face.webhooks
        self._hook = hook
        self._number = 0
        self.is_attached = False
        try:
            self._webhooks.check(hook.url)
        except ValueError as error:
            raise Problem(422, "invalid", f"webhook is {hook.url!r}: {error}") from None

    def attach(self, number: int) -> None:
        self._number = number
        self.is_attached = self._webhooks.attach(number, self._hook.url, self._hook.secret)

    async def see_to(self, request: Request, handle: bytes) -> None:
        """The job is this one, be it one that was there, or one that another member of the fleet has."""
        face = face_of(request)
        number = int(face.server.handles.number(handle))
        if self.is_attached and self._number == number:
            return
        self.attach(number)
        if not self.is_attached and face.host.fleet is not None:
            words = [quoted(word) for word in (self._hook.url, self._hook.secret) if word]
            with suppress(Problem):
                await ask(request, b"webhook", handle, *words)
                self.is_attached = True


async def _and_wait(request: Request, face: Face, asked: Parameters, function: bytes, workload: bytes) -> Response:
    seconds = min(asked.timeout or math.inf, face.config.http_timeout)
    outcome = await face.submitting.run(
        function,
        to_name(asked.unique),
        workload,
        priority=asked.priority,
        timeout=seconds,
        on_begin=request.scope["geartrain.protocol"].on_lost,
        traceparent=request.headers.get("traceparent", ""),
    )
    handle = as_text(outcome.handle)
    warnings = [content(each) for each in outcome.warnings]
    if outcome.end == 0:
        detail = f"The job has not ended within {seconds:g} s (--http-timeout at most): submit it in the background"
        raise Problem(504, "not-in-time", detail, handle=handle)
    if outcome.end != WORK_COMPLETE:
        raise _failure(outcome, handle, warnings)
    data = b"".join(outcome.data)
    if wants_bytes(request):
        headers = {"X-Gearman-Job-Handle": handle, "X-Gearman-Warnings": str(len(warnings))}
        return Response(data, media_type=BYTES, headers=headers)
    return await answer(Completed.model_construct(handle=handle, warnings=warnings), "result", data)


def _failure(outcome: Outcome, handle: str, warnings: list[Content]) -> Problem:
    text = as_text(outcome.exception) if outcome.end == WORK_EXCEPTION else ""
    detail = text or "The job has failed; its worker said nothing about it"
    return Problem(500, "job-failed", detail, handle=handle, warnings=[each.model_dump() for each in warnings])


def _nothing(number: int) -> None:
    pass
