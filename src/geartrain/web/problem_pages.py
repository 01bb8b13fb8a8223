"""``/problems`` and ``/problems/NAME``: what the ``type`` of a problem leads to, for whoever follows it in a browser.

Anyone may read them, also who has just been told that a token is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Final

from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from geartrain.web.problem_kinds import KINDS
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "max-age=3600",
}
_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title} - geartrain</title>
<h1>{title}</h1>
{body}
</html>
"""


def routes() -> list[Route]:
    """All of them."""
    return [Route("/problems", _all), Route("/problems/{name}", _one)]


async def _all(request: Request) -> Response:
    body = "\n".join(f"<h2>{escape(heading)}</h2>\n{_list(kinds)}" for heading, kinds in KINDS.items())
    return _page("Problems over HTTP", body)


async def _one(request: Request) -> Response:
    name = request.path_params["name"]
    for kinds in KINDS.values():
        if name in kinds:
            return _page(name, f'{_list({name: kinds[name]})}\n<p><a href="/problems">All problems</a></p>')
    raise Problem(404, "no-such-path", f"There is no problem {name}: /problems lists those that there are")


def _page(title: str, body: str) -> Response:
    return HTMLResponse(_PAGE.format(title=escape(title), body=body), headers=_HEADERS)


def _list(kinds: Mapping[str, tuple[int, str]]) -> str:
    rows = [f'<dt id="{name}"><b>{name}</b> ({status})\n<dd>{_html(text)}' for name, (status, text) in kinds.items()]
    return "\n".join(("<dl>", *rows, "</dl>"))


def _html(text: str) -> str:
    """Markdown with words in backticks; a link to a page of the docs, which is not here, is its words alone."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(words, quote=False))
