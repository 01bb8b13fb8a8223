"""Reads a job's events as a browser's EventSource does, and breaks off where it is told to."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple


class Event(NamedTuple):
    id: str
    name: str
    data: Any


class EventSource:
    """One reader: each ``read`` is a connection, and goes on behind the last event that came whole."""

    def __init__(self, port: int, handle: bytes, headers: dict[str, str] | None = None) -> None:
        self._port = port
        self._headers = headers or {}
        self.path = f"/api/v1/jobs/{handle.decode()}/events"
        self.last = ""
        self.events: list[Event] = []
        self.comments = 0
        self.retry = 0
        self.connection: http.client.HTTPConnection | None = None
        self.response: http.client.HTTPResponse | None = None
        self._rest = b""

    def open(self) -> int:
        """Connect; the status of the answer."""
        self.close()
        self._rest = b""
        self.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {"Last-Event-ID": self.last} if self.last else {}
        self.connection.request("GET", self.path, headers=headers | self._headers)
        self.response = self.connection.getresponse()
        return self.response.status

    def read(self, size: int = 1 << 62) -> bool:
        """Connect, and read so many bytes at most before the connection is cut; whether it came to the stream's end.

        The end is a 204 as well, which tells a browser not to come back.
        """
        if self.open() == 204:
            return True
        left = size
        while left > 0:
            data = self.receive(min(left, 65536))
            if not data:
                return True
            left -= len(data)
        self.close()
        return False

    def receive(self, size: int = 65536) -> bytes:
        """Some bytes of the stream, taken apart into events; empty at its end."""
        assert self.response is not None
        assert self.response.status == 200
        data = self.response.read1(size)
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            self._take(block.decode())
        return data

    def wait_for(self, name: str) -> Event:
        """Read on until an event of this name comes."""
        while not any(event.name == name for event in self.events):
            assert self.receive(), f"the stream has ended without {name}"
        return next(event for event in self.events if event.name == name)

    def close(self) -> None:
        if self.response is not None:
            self.response.close()
        if self.connection is not None:
            self.connection.close()

    def _take(self, block: str) -> None:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if not name:
                self.comments += 1
            else:
                assert name not in fields
                fields[name] = value.removeprefix(" ")
        if "retry" in fields:
            self.retry = int(fields["retry"])
        if "data" in fields:
            self.last = fields["id"]
            self.events.append(Event(self.last, fields["event"], json.loads(fields["data"])))
