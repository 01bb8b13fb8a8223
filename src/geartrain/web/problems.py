"""Errors of the HTTP face as problem details (RFC 9457): what was wrong, with what value, and what to do."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
TYPES: Final = "/problems#"  # of which each slug is a part, see ``problem_kinds``


class Problem(Exception):
    """What is answered instead of what was asked for.

    ``slug`` names the kind of problem, ``detail`` says in a sentence what was wrong and what to do, ``more`` are
    members of the JSON object, and ``headers`` stand beside it.
    """

    def __init__(
        self, status: int, slug: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = headers or {}
        self.more = more

    def members(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "type": f"{TYPES}{self.slug}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }

    def body(self) -> bytes:
        """The JSON text."""
        return json.dumps(self.members(), ensure_ascii=False).encode("utf-8", "backslashreplace")

    def response(self) -> Response:
        """The whole answer."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)
