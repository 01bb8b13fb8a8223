"""What somebody is told of a job's end over HTTP: the body, its signature, and the record that is kept until then."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from geartrain.jobserver.watching import COMPLETED
from geartrain.web.names import to_text

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer

MAX_RESULT: Final = 64 * 1024  # bytes of a result, or of what is said of a failure
LOST: Final = b"lost"  # how a job has ended that was gone when the job server started again


@dataclass(frozen=True, slots=True)
class Hook:
    """Who wants to be told of one job's end; without a ``secret`` it is signed with the job server's."""

    url: str
    secret: str | None = None


def pack_hooks(hooks: list[Hook]) -> bytes:
    """The hooks of one job, as they are kept."""
    return json.dumps([[hook.url, hook.secret] for hook in hooks]).encode()


def unpack_hooks(value: bytes) -> list[Hook]:
    """What ``pack_hooks`` has made. Raises ValueError for anything else."""
    try:
        return [Hook(str(url), None if secret is None else str(secret)) for url, secret in json.loads(value)]
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


@dataclass(slots=True)
class Delivery:
    """One call that is to be made; its body is in the record of this ``key``.

    ``due`` is when to try it next, in Unix time, ``tries`` how often that has been.
    """

    key: bytes
    url: str
    secret: str | None
    host: str
    handle: str
    due: float
    tries: int = 0

    @property
    def id(self) -> str:
        """Tells this call from all others; the same at each try."""
        return self.key.hex()

    def pack(self, body: bytes) -> bytes:
        """The value of its record."""
        head = [self.url, self.secret, self.host, self.handle, self.due, self.tries]
        return json.dumps(head).encode() + b"\n" + body


def unpack_delivery(key: bytes, value: bytes) -> Delivery:
    """What ``Delivery.pack`` has made, without the body. Raises ValueError for anything else."""
    try:
        url, secret, host, handle, due, tries = json.loads(value.partition(b"\n")[0])
        return Delivery(key, url, secret, host, handle, float(due), int(tries))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def describe(server: JobServer, number: int, outcome: bytes, data: bytes, attempts: int) -> dict[str, Any]:
    """What is told of the end of the job of this number, which is still known, or lost."""
    job = server.jobs.get(number)
    started = None
    if job is not None and job.started_at > 0:
        started = round(server.wall - (server.now - job.started_at), 3)
    return {
        "handle": to_text(server.handles.make(number)),
        "function": None if job is None else to_text(job.function.name),
        "unique": None if job is None else to_text(job.unique),
        "outcome": outcome.decode(),
        **_content("result" if outcome == COMPLETED else "error", data),
        "attempts": attempts,
        "submitted": None if job is None else round(job.created, 3),
        "started": started,
        "ended": round(server.wall, 3),
    }


def without_content(described: dict[str, Any]) -> dict[str, Any]:
    """The same where there is no room for what the worker has said."""
    size = described["size"]
    return described | {"result": None, "error": None, "encoding": "text", "truncated": size > 0}


def _content(name: str, data: bytes) -> dict[str, Any]:
    """What the worker has said: as text where it is text, else in base64, and in either case no more than the limit."""
    part = data[:MAX_RESULT]
    encoding = "text"
    try:
        text = part.decode()
    except UnicodeDecodeError as error:
        if len(part) < len(data) and error.start >= len(part) - 3:  # the limit has cut a letter
            text = part[: error.start].decode()
        else:
            encoding, text = "base64", base64.b64encode(part).decode()
    return {
        "result": None, "error": None, name: text,
        "encoding": encoding, "size": len(data), "truncated": len(part) < len(data),
    }  # fmt: skip


def sign(secret: str, body: bytes, now: int) -> str:
    """The value of the header ``X-Geartrain-Signature``."""
    signed = hmac.new(secret.encode(), b"%d.%b" % (now, body), hashlib.sha256)
    return f"t={now},v1={signed.hexdigest()}"
