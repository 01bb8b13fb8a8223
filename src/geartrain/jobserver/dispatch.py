"""Which rule answers which packet, and which right that needs.

The few packets that come all the time are told apart in ``JobServer.receive`` itself, by comparing numbers; this table
has all of them, since it also says what each needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from geartrain.jobserver.rights import READ, SUBMIT, WORK
from geartrain.jobserver.rules.assignment import can_do, can_do_timeout, cant_do, grab, reset_abilities
from geartrain.jobserver.rules.reports import report
from geartrain.jobserver.rules.status import send_status, send_status_of_unique
from geartrain.jobserver.rules.submission import submit
from geartrain.jobserver.rules.tracing import TRACEPARENT, TRACES, is_traceparent
from geartrain.jobserver.rules.waking import fall_asleep
from geartrain.jobserver.shown import show_name
from geartrain.native import i64
from geartrain.wire.packets import (
    ALL_YOURS,
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_REQ,
    ECHO_RES,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    LAYOUTS,
    OPTION_REQ,
    OPTION_RES,
    PRE_SLEEP,
    RESET_ABILITIES,
    SET_CLIENT_ID,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_JOB_SCHED,
    SUBMIT_REDUCE_JOB,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    TO_SERVER,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    response_head,
)

if TYPE_CHECKING:
    from geartrain.jobserver.model import Peer
    from geartrain.jobserver.state import State

MAX_CLIENT_ID: Final = 127
ANYBODY: Final = 0  # needs no right

_RESERVED: Final = 5  # a number that the protocol names and gives no meaning


def dispatch(state: State, peer: Peer, type: i64) -> None:
    """Have the packet that the peer's parser stands at answered."""
    rule = RULES.get(type)
    if rule is None:
        if type == _RESERVED or type in LAYOUTS:
            peer.send_error(b"INVALID_COMMAND", b"Command not expected")
        else:
            peer.send_error(b"INVALID_COMMAND", b"Invalid command expected")
            state.event("unknown_packet", peer, {"type": int(type)})
    elif rule[1] != ANYBODY and peer.rights & rule[1] == 0:
        name = LAYOUTS[type][0]
        peer.send_error(b"NOT_ALLOWED", b"This connection has no right to " + name.encode())
        state.event("request_refused", peer, {"request": name})
    else:
        rule[0](state, peer, type)


def _fall_asleep(state: State, peer: Peer, _: i64) -> None:
    fall_asleep(state, peer)


def _echo(_: State, peer: Peer, __: i64) -> None:
    body = peer.parser.last_argument(peer.parser.body)
    peer.send(response_head(ECHO_RES, len(body)))
    if body:
        peer.send(body)


def _get_status(state: State, peer: Peer, _: i64) -> None:
    send_status(state, peer, peer.parser.last_argument(peer.parser.body))


def _get_status_unique(state: State, peer: Peer, _: i64) -> None:
    send_status_of_unique(state, peer, peer.parser.last_argument(peer.parser.body))


def _can_do(state: State, peer: Peer, _: i64) -> None:
    can_do(state, peer, peer.parser.last_argument(peer.parser.body), 0.0)


def _can_do_timeout(state: State, peer: Peer, type: i64) -> None:
    name, nul, milliseconds = peer.parser.last_argument(peer.parser.body).partition(b"\0")
    if nul:
        can_do_timeout(state, peer, name, milliseconds)
    else:
        state.too_few_arguments(peer, type)


def _cant_do(state: State, peer: Peer, _: i64) -> None:
    cant_do(state, peer, peer.parser.last_argument(peer.parser.body))


def _reset_abilities(state: State, peer: Peer, _: i64) -> None:
    reset_abilities(state, peer)


def _set_client_id(_: State, peer: Peer, __: i64) -> None:
    peer.client_id = peer.parser.last_argument(peer.parser.body)[:MAX_CLIENT_ID]
    # A blank and a colon end this column in the listing of workers.
    peer.shown_id = (b" " + show_name(peer.client_id)).replace(b" :", b" \\x3a")[1:] or b"-"


def _option(_: State, peer: Peer, __: i64) -> None:
    body = peer.parser.last_argument(peer.parser.body)
    option = body.lower()
    if option in (b"exceptions", b"policies"):
        if option == b"exceptions":
            peer.exceptions = True
        else:
            peer.verdicts = True
        peer.send(response_head(OPTION_RES, len(body)) + body)
    elif option == TRACES or (option.startswith(TRACEPARENT) and is_traceparent(option[len(TRACEPARENT) :])):
        if option == TRACES:
            peer.traces = True
        else:
            peer.traceparent = option[len(TRACEPARENT) :]
        peer.send(response_head(OPTION_RES, len(body)) + body)
    else:
        peer.send_error(b"UNKNOWN_OPTION", b"Server does not recognize given option")


def _all_yours(_: State, __: Peer, ___: i64) -> None:
    """Taken, and without effect."""


RULES: Final[dict[int, tuple[Callable[[State, Peer, i64], None], int]]] = {
    CAN_DO: (_can_do, WORK),
    CANT_DO: (_cant_do, WORK),
    CAN_DO_TIMEOUT: (_can_do_timeout, WORK),
    RESET_ABILITIES: (_reset_abilities, WORK),
    PRE_SLEEP: (_fall_asleep, WORK),
    GRAB_JOB: (grab, WORK),
    GRAB_JOB_UNIQ: (grab, WORK),
    GRAB_JOB_ALL: (grab, WORK),
    ALL_YOURS: (_all_yours, WORK),
    WORK_STATUS: (report, WORK),
    WORK_COMPLETE: (report, WORK),
    WORK_FAIL: (report, WORK),
    WORK_EXCEPTION: (report, WORK),
    WORK_DATA: (report, WORK),
    WORK_WARNING: (report, WORK),
    SUBMIT_JOB: (submit, SUBMIT),
    SUBMIT_JOB_BG: (submit, SUBMIT),
    SUBMIT_JOB_HIGH: (submit, SUBMIT),
    SUBMIT_JOB_HIGH_BG: (submit, SUBMIT),
    SUBMIT_JOB_LOW: (submit, SUBMIT),
    SUBMIT_JOB_LOW_BG: (submit, SUBMIT),
    SUBMIT_JOB_SCHED: (submit, SUBMIT),
    SUBMIT_JOB_EPOCH: (submit, SUBMIT),
    SUBMIT_REDUCE_JOB: (submit, SUBMIT),
    SUBMIT_REDUCE_JOB_BACKGROUND: (submit, SUBMIT),
    GET_STATUS: (_get_status, READ | SUBMIT),
    GET_STATUS_UNIQUE: (_get_status_unique, READ | SUBMIT),
    ECHO_REQ: (_echo, ANYBODY),
    SET_CLIENT_ID: (_set_client_id, ANYBODY),
    OPTION_REQ: (_option, ANYBODY),
}
"""Each packet that a peer may send: the rule that answers it, and the rights of which it needs one."""

assert all(LAYOUTS[number][1] & TO_SERVER for number in RULES)
