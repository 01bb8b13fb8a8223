"""The paths of the HTTP face and who answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.web.dialect import Dialect
from geartrain.web.gate import Gate, is_ours

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from geartrain.web.face import Face

_SECURITY: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
        b"img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
]


class Paths:
    """Brings each request to its part."""

    def __init__(self, ours: ASGIApp, dialect: ASGIApp) -> None:
        self._ours = ours
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_ours(scope["path"]):

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    its_own = {name for name, _ in message["headers"]}
                    message["headers"] = [*message["headers"], *(each for each in _SECURITY if each[0] not in its_own)]
                await send(message)

            await self._ours(scope, receive, answer)
        else:
            await self._dialect(scope, receive, send)


def make_app(face: Face) -> ASGIApp:
    """All of it, behind the gate."""
    from geartrain.web.api import make_api

    return Gate(face, Paths(make_api(face), Dialect(face)))
