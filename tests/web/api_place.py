"""A job server with the JSON API, somebody who asks it, and a worker."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from http_client import Answer, Http

from geartrain.web.access import digest_of
from servers import RunningServer, running_geartrain, wait_until
from wire_caller import Caller

API = "/api/v1"


class Api:
    """Asks the API; ``token`` is sent with each request."""

    def __init__(self, port: int, token: str = "") -> None:
        self.http = Http(port)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def begin(self, method: str, path: str, given: Any = None, **headers: str) -> None:
        """Send a request below ``/api/v1``; bytes are sent as they are, all else as JSON."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if isinstance(given, bytes):
            body = given
            sent.setdefault("Content-Type", "application/octet-stream")
        else:
            body = b"" if given is None else json.dumps(given).encode()
            if given is not None:
                sent.setdefault("Content-Type", "application/json")
        self.http.begin(method, API + path, body, sent)

    def end(self) -> Answer:
        answer = self.http.end()
        if answer.status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json["status"] == answer.status
            assert answer.json["detail"]
        return answer

    def ask(self, method: str, path: str, given: Any = None, **headers: str) -> Answer:
        self.begin(method, path, given, **headers)
        return self.end()

    def get(self, path: str) -> Any:
        """What a question that must succeed is answered."""
        answer = self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.json

    def do(self, method: str, path: str, given: Any = None) -> Any:
        """What an order that must succeed is answered."""
        answer = self.ask(method, path, given)
        assert answer.status in (200, 202), answer
        return answer.json

    def refusal(self, status: int, method: str, path: str, given: Any = None) -> tuple[str, str]:
        """The kind and the text of the problem that is answered."""
        answer = self.ask(method, path, given)
        assert answer.status == status, answer
        return answer.json["type"].removeprefix("/problems#"), answer.json["detail"]

    def submit(self, function: str, **more: Any) -> str:
        """Submit a background job; its handle."""
        return str(self.do("POST", "/jobs", {"function": function, "background": True, **more})["handle"])

    def wait_for(self, handle: str, state: str) -> Any:
        """The job, once it is in this state."""
        job: Any = None

        def is_there() -> bool:
            nonlocal job
            job = self.get(f"/jobs/{handle}")
            return bool(job["state"] == state)

        wait_until(is_there, f"{handle} is {state}")
        return job


class Place:
    """A job server, somebody who asks, and a worker that can do f."""

    def __init__(self, server: RunningServer, worker: Caller) -> None:
        self.server = server
        self.api = Api(server.http_port)
        self.worker = worker

    def with_token(self, token: str) -> Api:
        return Api(self.server.http_port, token)


@contextlib.contextmanager
def place(*options: str, store: str = "memory:") -> Iterator[Place]:
    with running_geartrain("--http=127.0.0.1:0", *options, store=store) as server, Caller(server) as worker:
        worker.can_do(b"f")
        worker.fence()
        yield Place(server, worker)


def tokens_file(roles: dict[str, list[str]]) -> str:
    """A configuration with a token for each of these names, which is ``token-of-NAME``."""
    return "".join(
        f'[tokens.{name}]\ndigest = "{digest_of(f"token-of-{name}")}"\nroles = {json.dumps(given)}\n'
        for name, given in roles.items()
    )
