"""The API against its OpenAPI document: schemathesis asks each operation what may be asked, and what may not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httptools")
pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from geartrain.web.api import describe
from geartrain.worker import AssignedJob, Worker
from servers import running_geartrain

CHECKS = [content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = 20  # of each operation


# An answer that does not end is not for it.
schema = (
    schemathesis.openapi.from_dict(describe().openapi())
    .exclude(operation_id="drain_server")
    .exclude(path="/api/v1/live")
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_geartrain("--http=127.0.0.1:0", "--http-timeout=0.1") as server:
        worker = Worker([server.address])

        @worker.function("resize")
        def resize(job: AssignedJob) -> bytes:
            return job.workload

        with worker:
            yield f"http://127.0.0.1:{server.http_port}"
        assert "http_failed" not in server.log.read_text()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_each_operation_answers_as_the_document_says(case: Any, url: str) -> None:
    response = case.call(base_url=url)
    case.validate_response(response, checks=CHECKS)
    assert response.status_code != 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        assert response.json()["type"].startswith("/problems#")
