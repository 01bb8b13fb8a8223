"""A client of HTTP/1.1 that sends exactly what it is told, and keeps its connection."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """Requests to 127.0.0.1, over one connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def begin(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._connection.request(method, path, body, headers or {})

    def end(self) -> Answer:
        response = self._connection.getresponse()
        body = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        self.begin(method, path, body, headers)
        return self.end()

    def close(self) -> None:
        self._connection.close()
