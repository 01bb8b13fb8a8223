"""``/healthz`` and ``/readyz``: whether the job server is alive, and whether it takes jobs. Anyone may ask.

    /healthz    200 as long as the loop turns; whoever gets no answer restarts the job server
    /readyz     200 if it takes jobs, else 503 with the reasons; whoever gets that sends jobs elsewhere meanwhile

What exactly is wrong with the store stands in the log: it may name hosts and users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

    from geartrain.jobserver import JobServer

_FRESH: Final = {"cache-control": "no-store"}


def troubles_of(server: JobServer) -> list[str]:
    """Why it takes no jobs at the moment, all of it. An extension starts only when the store is loaded."""
    troubles = []
    if server.draining:
        troubles.append("draining: the job server is about to stop")
    if server.durable and server.store.trouble:
        troubles.append("store: it takes nothing at the moment; the log says why")
    return troubles


class Health:
    """Answers from what is there, without asking anything."""

    def __init__(self, server: JobServer) -> None:
        self._server = server

    def routes(self) -> list[Route]:
        return [Route("/healthz", self._alive), Route("/readyz", self._ready)]

    async def _alive(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=_FRESH)

    async def _ready(self, request: Request) -> Response:
        troubles = troubles_of(self._server)
        if troubles:
            return JSONResponse({"status": "not ready", "why": troubles}, 503, headers=_FRESH)
        return JSONResponse({"status": "ready"}, headers=_FRESH)
