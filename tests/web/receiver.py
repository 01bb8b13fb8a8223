"""Who is called by webhooks: a web server in this process that writes down what comes, and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from servers import wait_until


@dataclass(frozen=True)
class Call:
    """One call: its path, its headers and its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Receiver(ThreadingHTTPServer):
    """Listens at once, and serves as a context manager; ``answer`` gives the status, and may wait."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, answer: Callable[[Call], int] = lambda call: 200, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer
        self.calls: list[Call] = []
        self.under_way = 0
        self.most = 0  # calls under way at once
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # who calls may go

    def wait_for(self, count: int, seconds: float = 10) -> list[Call]:
        wait_until(lambda: len(self.calls) >= count, f"{count} calls", seconds)
        return self.calls

    def __enter__(self) -> Receiver:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        receiver = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = Call(self.path, {name.title(): value for name, value in self.headers.items()}, body)
        with receiver.lock:
            receiver.under_way += 1
            receiver.most = max(receiver.most, receiver.under_way)
        status = receiver.answer(call)
        with receiver.lock:
            receiver.under_way -= 1
            receiver.calls.append(call)
        self.send_response(status)
        self.send_header("Location", receiver.url)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass
