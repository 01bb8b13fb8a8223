"""Spans of OpenTelemetry for the jobs that a client submits; needs the package opentelemetry-api.

    client = Client(tracing=Tracing())

``submit`` lasts until a job server has accepted the job, ``wait`` from then on until its result has come. The job
server is told of the first ahead of the submission, and tells the worker; one that does not know this says so once, and
is told no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geartrain.client.request import Request
    from geartrain.client.submission import Submission


class Tracing:
    """Makes the spans, children of the one that is current when a job is submitted.

    ``tracer_provider`` is OpenTelemetry's own unless another is given.
    """

    def __init__(self, tracer_provider: Any = None) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ImportError("Tracing needs opentelemetry-api: pip install 'geartrain[otel]'") from None
        self.context = context
        self.trace = trace
        self.tracer = trace.get_tracer("geartrain", tracer_provider=tracer_provider)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, submission: Submission) -> None:
        """A job is about to be submitted."""
        spans = _Spans(self, submission)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self.trace.set_span_in_context(spans.span))
        submission.traceparent = carrier.get("traceparent", "").encode()
        submission.follow(spans)


class _Spans:
    """The spans of one submission."""

    def __init__(self, tracing: Tracing, submission: Submission) -> None:
        self._tracing = tracing
        self._parent = tracing.context.get_current()
        self._name = submission.function.decode("utf-8", "replace")
        self._is_accepted = False
        self.span = self._start("submit", "send", tracing.trace.SpanKind.PRODUCER)

    def touched(self, request: Request[Any]) -> None:
        submission: Submission = request  # type: ignore[assignment]
        if submission.handle is not None and not self._is_accepted:
            self._is_accepted = True
            self.span.set_attribute("messaging.message.id", submission.handle.decode("utf-8", "replace"))
            if submission.sent_to is not None:
                self.span.set_attribute("server.address", submission.sent_to.host)
            if not submission.is_background:
                self.span.end()
                self.span = self._start("wait", "receive", self._tracing.trace.SpanKind.CLIENT)
        if submission.done:
            if submission.error is not None:
                self.span.record_exception(submission.error)
                self.span.set_status(self._tracing.trace.StatusCode.ERROR, str(submission.error))
            self.span.end()

    def _start(self, operation: str, kind_of_operation: str, kind: Any) -> Any:
        attributes = {
            "messaging.system": "gearman",
            "messaging.operation.name": operation,
            "messaging.operation.type": kind_of_operation,
            "messaging.destination.name": self._name,
        }
        return self._tracing.tracer.start_span(
            f"{operation} {self._name}", self._parent, kind=kind, attributes=attributes
        )
