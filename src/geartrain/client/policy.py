"""A policy as a job server tells it."""

from __future__ import annotations

from dataclasses import dataclass

from geartrain.errors import LocalProtocolError
from geartrain.link import Address
from geartrain.wire.text import as_text

PolicyValue = str | int | float | None


@dataclass(frozen=True, slots=True)
class FunctionPolicy:
    """What is set for a function, or for all whose names fit a pattern with ``*``.

    ``source`` is ``command`` or ``file``, for the job server's configuration file. ``keys`` are as they were set.
    """

    server: Address
    name: str
    source: str
    keys: dict[str, str]

    @classmethod
    def read(cls, server: Address, row: bytes) -> FunctionPolicy:
        """From a row of ``policy show``; raises ValueError."""
        name, source, words = map(as_text, row.split(b"\t"))
        pairs = (word.partition("=") for word in words.split(" "))
        return cls(server, name, source, {key: value for key, _, value in pairs})


def policy_word(key: str, value: PolicyValue) -> bytes:
    """A key and its value as they stand in a command; None takes the key away. Raises LocalProtocolError."""
    text = "" if value is None else value if isinstance(value, str) else f"{value:.12g}"
    encoded = f"{key}={text}".encode()
    if not key or "=" in key or any(byte <= 32 for byte in encoded):
        raise LocalProtocolError(f"{key}={text}: a policy's keys and values hold no white space, and no key a =")
    return encoded
