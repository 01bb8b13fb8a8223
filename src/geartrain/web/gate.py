"""What each request passes first: is it meant for us, whose page has sent it, and who asks.

A page of somebody else's site can have a browser send requests to a loopback address, and a name server can let a
site's own name lead there. So the Host has to be one of ours, an Origin has to be the same as it, and what the browser
says of the sender (Sec-Fetch-Site) is heeded. Old browsers do not say it, nor do others over plain HTTP to another
machine; and a picture on a page comes without Origin. So where GET submits, it does not for such a browser.
"""

from __future__ import annotations

import logging
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from geartrain.web.access import COOKIE, Identity, identity
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from geartrain.web.face import Face

log: Final = logging.getLogger("geartrain.web")

SAFE: Final = ("GET", "HEAD", "OPTIONS")
BROWSERS: Final = ("Mozilla/", "Opera/")  # how the User-Agent of each begins
OPEN: Final = ("/healthz", "/readyz")  # which tell nobody anything, so that any monitor may ask


OURS: Final = frozenset(
    ("api", "assets", "dashboard", "docs", "events", "favicon.ico", "healthz", "login", "metrics", "problems", "readyz",
     "robots.txt", "static", ".well-known")
)  # fmt: skip
"""First parts of paths that are no functions; a function of such a name is reached below /gearman/."""


def is_ours(path: str) -> bool:
    """Whether a path is none of a function."""
    return path == "/" or path[1:].partition("/")[0] in OURS


def note_refusal(face: Face, problem: Problem, scope: Scope) -> None:
    """Tell the audit if somebody was turned away."""
    if problem.status in (401, 403, 421, 429):
        host = (scope.get("client") or ("unix",))[0]
        known: Identity | None = scope.get("identity")
        who = "nobody" if known is None else known.name
        is_known = known is not None and bool(known.roles)
        face.audit.turn_away(who, host, f"{scope['method']} {scope['path']}", problem.slug, is_known=is_known)


def fault() -> Problem:
    """What is told where we are at fault."""
    return Problem(500, "fault", "The job server has a fault here: its log has the details; please report it")


class Gate:
    """An ASGI application around another."""

    def __init__(self, face: Face, app: ASGIApp) -> None:
        self._face = face
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            scope["identity"] = self._admit(scope)
            await self._app(scope, receive, send)
        except Problem as problem:
            note_refusal(self._face, problem, scope)
            await problem.response()(scope, receive, send)
        except (ConnectionError, ClientDisconnect):
            pass  # the client has gone, and nobody waits for an answer
        except Exception as error:
            request = f"{scope['method']} {scope['path']}"
            log.error("http_failed", exc_info=error, extra={"fields": {"request": request}})
            if not scope["geartrain.protocol"].has_answered:
                await fault().response()(scope, receive, send)

    def _admit(self, scope: Scope) -> Identity:
        """Who asks. Raises Problem."""
        host = origin = site = mode = agent = authorization = cookie = csrf = ""
        for key, value in scope["headers"]:
            if key == b"host":
                if host:
                    raise Problem(400, "two-hosts", "A request has one Host")
                host = value.decode("latin-1")
            elif key == b"origin":
                origin = value.decode("latin-1")
            elif key == b"sec-fetch-site":
                site = value.decode("latin-1")
            elif key == b"sec-fetch-mode":
                mode = value.decode("latin-1")
            elif key == b"user-agent":
                agent = value.decode("latin-1")
            elif key == b"authorization":
                authorization = value.decode("latin-1")
            elif key == b"cookie":
                cookie = value.decode("latin-1")
            elif key == b"x-csrf-token":
                csrf = value.decode("latin-1")
        access = self._face.access
        local = scope.get("server") or ("", None)
        client = (scope.get("client") or ("unix",))[0]
        if host or scope["http_version"] != "1.0":
            access.check_host(host, local[0])
        method = scope["method"]
        if origin and not access.is_ours(origin, scope["scheme"], host):
            raise Problem(403, "other-origin", f"A page of {origin} may not ask this job server")
        # A link on another site may lead to what is shown; it may not submit, as GET does beside the paths of ours.
        is_link = mode == "navigate" and method == "GET" and is_ours(scope["path"])
        if site not in ("", "same-origin", "none") and not is_link:
            raise Problem(403, "other-origin", "A page of another site may not ask this job server")
        submits = method in ("GET", "HEAD") and self._face.config.http_gearmand and not is_ours(scope["path"])
        if submits and not (site or authorization) and agent.startswith(BROWSERS):
            detail = "This browser does not say whose page it shows: send POST, or another User-Agent, or a token"
            raise Problem(403, "other-origin", detail)
        if scope["path"] in OPEN:
            return identity("nobody", client, ())
        if COOKIE in cookie and not authorization:
            session = access.session(_secret_of(cookie))
            if session is not None:
                if method not in SAFE and csrf != session.csrf:
                    raise Problem(403, "csrf", "Send the session's token in the header X-CSRF-Token")
                return session.identity
        return access.identify(authorization, client)


def _secret_of(cookie: str) -> str:
    try:
        return SimpleCookie(cookie)[COOKIE].value
    except (CookieError, KeyError):
        return ""
