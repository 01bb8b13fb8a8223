"""Spans of OpenTelemetry for the jobs that a worker runs, as middleware; needs the package opentelemetry-api.

    worker = Worker(middleware=[JobLog(), Tracing()])

A span is a child of the submission's, where the client traces as well and the job server brings that along. While a
function runs its span is the current one, so that what it does itself belongs to it.
"""

from __future__ import annotations

from typing import Any

from geartrain.errors import Retry
from geartrain.worker.job import AssignedJob
from geartrain.worker.middleware import Middleware


class Tracing(Middleware):
    """Makes a span for each job, ``run`` and the function's name.

    ``tracer_provider`` is OpenTelemetry's own unless another is given.
    """

    wants_traces = True

    def __init__(self, tracer_provider: Any = None) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ImportError("Tracing needs opentelemetry-api: pip install 'geartrain[otel]'") from None
        self._context = context
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = trace.get_tracer("geartrain", tracer_provider=tracer_provider)
        self._open: dict[AssignedJob, tuple[Any, Any]] = {}

    def before(self, job: AssignedJob) -> None:
        parent = None
        if job.traceparent:
            parent = self._propagator.extract({"traceparent": job.traceparent.decode("ascii", "replace")})
        attributes: dict[str, Any] = {
            "messaging.system": "gearman",
            "messaging.operation.name": "run",
            "messaging.operation.type": "process",
            "messaging.destination.name": job.function,
            "messaging.message.id": job.handle.decode("utf-8", "replace"),
            "messaging.message.body.size": len(job.workload),
        }
        span = self._tracer.start_span(
            f"run {job.function}", parent, kind=self._trace.SpanKind.CONSUMER, attributes=attributes
        )
        self._open[job] = span, self._context.attach(self._trace.set_span_in_context(span))

    def after(self, job: AssignedJob, seconds: float) -> None:
        self._end(job)

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        span, _ = self._open[job]
        if not isinstance(error, Retry):
            span.record_exception(error)
        span.set_status(self._trace.StatusCode.ERROR, str(error) or type(error).__name__)
        self._end(job)

    def _end(self, job: AssignedJob) -> None:
        span, token = self._open.pop(job)
        self._context.detach(token)
        span.end()
