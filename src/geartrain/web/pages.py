"""The dashboard's files below ``/dashboard/``, as Vite has built them of ``dashboard/``; without them a page to say so.

Each screen has a path of its own there, so whatever is no file is answered with the one HTML page, whose script
looks at the path. Files below ``assets/`` have a digest in their names, and are kept by browsers for good. They are
read once, with what was compressed beside them.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

PATH: Final = "/dashboard/"
FOLDER: Final = Path(__file__).parent / "dashboard"
_INDEX: Final = "index.html"
_ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}  # the best first
_KINDS: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_FOREVER: Final = "public, max-age=31536000, immutable"
_ASKED_EACH_TIME: Final = "no-cache"
_WITHOUT: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>geartrain</title>
<h1>This installation has no dashboard</h1>
<p>It was installed from source, where there was no Node.js to build the dashboard with. Everything else is here: the
JSON API below <a href="/api/v1/openapi.json">/api/v1</a>, and <a href="/metrics">/metrics</a>.
<p>To have it, install a wheel of geartrain, or install Node.js 20.19 or newer with npm and install from source again.
In a checkout, run <code>make dashboard</code>. Then start the job server anew.
</html>
"""


class _File:
    """A file, and the same compressed."""

    def __init__(self, path: Path, name: str) -> None:
        self.kind = _KINDS.get(path.suffix, "application/octet-stream")
        self.cache = _FOREVER if name.startswith("assets/") else _ASKED_EACH_TIME
        self.bodies = {"": path.read_bytes()}
        for encoding, suffix in _ENCODINGS.items():
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                self.bodies[encoding] = beside.read_bytes()
        self.tag = f'"{blake2b(self.bodies[""], digest_size=8).hexdigest()}"'

    def answer(self, request: Request) -> Response:
        """It in the best form that the client takes; nothing, if the client has it."""
        headers = {"Cache-Control": self.cache, "ETag": self.tag, "Vary": "Accept-Encoding"}
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        taken = {part.partition(";")[0].strip() for part in request.headers.get("accept-encoding", "").split(",")}
        encoding = next((name for name in _ENCODINGS if name in taken and name in self.bodies), "")
        if encoding:
            headers["Content-Encoding"] = encoding
        return Response(self.bodies[encoding], headers=headers, media_type=self.kind)


class Pages:
    """What a browser is shown."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            name: _File(path, name)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix not in _ENCODINGS.values()
            for name in [path.relative_to(folder).as_posix()]
        }

    def routes(self) -> list[Route]:
        return [Route("/", self._home), Route(PATH[:-1], self._to_dashboard), Route(PATH + "{path:path}", self._page)]

    async def _home(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return await self._to_dashboard(request)
        raise Problem(404, "no-such-path", "There is nothing at /: /dashboard/ is for browsers, /api/v1 for programs")

    async def _to_dashboard(self, request: Request) -> Response:
        return RedirectResponse(PATH, 302)

    async def _page(self, request: Request) -> Response:
        name = request.path_params["path"]
        if name.startswith("assets/") and name not in self._files:
            raise Problem(404, "no-such-path", f"There is no file {PATH}{name}: it may be of another version")
        file = self._files.get(name) or self._files.get(_INDEX)
        if file is None:
            return Response(_WITHOUT, 404, {"Cache-Control": _ASKED_EACH_TIME}, "text/html")
        return file.answer(request)
