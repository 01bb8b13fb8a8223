"""Text commands, asked within the process: what the API shows and changes goes by the same rules as over the socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.client.command import Command, Form
from geartrain.daemon.in_process import InProcessConsole
from geartrain.errors import RemoteProtocolError, ServerError
from geartrain.jobserver.origin import Origin
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host
    from geartrain.web.access import Identity

STATUS: Final = {
    "UNKNOWN_GROUP": 404,
    "UNKNOWN_JOB": 404,
    "UNKNOWN_SCHEDULE": 404,
    "UNKNOWN_FUNCTION": 404,
    "UNKNOWN_POLICY": 404,
    "UNKNOWN_CONNECTION": 404,
    "NOT_ALLOWED": 403,
    "NOT_READY": 409,
    "NOT_WAITING": 409,
    "NOT_PAUSED": 409,
    "IN_STORE": 409,
    "FLEET": 409,
    "INCOMPLETE": 503,
    "MOVED": 503,
    "NO_ROOM": 503,
    "MAXQUEUE": 503,
    "NOT_STORED": 503,
    "QUEUE_ERROR": 503,
}
"""The status of each refusal; of any other it is 400."""


async def ask(host: Host, identity: Identity, *words: bytes, form: Form = "line") -> Command:
    """Ask the job server, for somebody; the answer is whole. Raises Problem for a refusal."""
    command = Command(*words, form=form, who=identity.name.encode())
    try:
        console = InProcessConsole(host, Origin(identity.host, rights=identity.rights))
    except ConnectionRefusedError as error:
        raise Problem(503, "stopping", str(error), headers={"Retry-After": "5"}) from None
    try:
        console.send(command.sent)
        while not command.receive(await console.read()):
            pass
    except ServerError as error:
        code = error.code.replace("_", "-").lower()
        raise Problem(STATUS.get(error.code, 400), code, error.text, code=error.code) from None
    except RemoteProtocolError as error:
        raise Problem(500, "unreadable-answer", str(error)) from None
    except ConnectionError as error:
        raise Problem(503, "stopping", str(error), headers={"Retry-After": "5"}) from None
    finally:
        console.close()
    return command
