"""The text commands about policies and pauses: ``policy set|unset|show``, ``pause``, ``resume``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from geartrain.jobserver.rights import OPERATE, READ
from geartrain.jobserver.rules.answers import acknowledge, list_lines, refuse
from geartrain.jobserver.rules.policing import keep_pause, resume, set_policy, unset_policy
from geartrain.jobserver.shown import show_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.model import Peer
    from geartrain.jobserver.state import State


def _policy(state: State, peer: Peer, arguments: list[bytes]) -> None:
    what = arguments[0].lower() if arguments else b""
    if what == b"show" and len(arguments) <= 2:
        list_lines(state, peer, _lines(state, arguments[1:]))
    elif what in (b"set", b"unset") and peer.rights & OPERATE == 0:
        peer.send(b"ERR NOT_ALLOWED This+connection+has+no+right+to+policy+%b\r\n" % show_name(what))
        state.event("request_refused", peer, {"request": "policy"})
    elif what == b"set" and len(arguments) >= 3:
        try:
            set_policy(state, peer, arguments[1], [word.decode("utf-8", "surrogateescape") for word in arguments[2:]])
        except ValueError as error:
            refuse(peer, b"INVALID_POLICY", str(error))
        else:
            acknowledge(state, peer)
    elif what == b"unset" and len(arguments) == 2:
        try:
            known = unset_policy(state, peer, arguments[1])
        except ValueError as error:
            refuse(peer, b"INVALID_POLICY", str(error))
        else:
            if known:
                acknowledge(state, peer)
            else:
                refuse(peer, b"UNKNOWN_POLICY", f"No command has set a policy {arguments[1]!r}")
    else:
        refuse(
            peer, b"INVALID_ARGUMENTS", "Write policy set NAME key=value ..., policy unset NAME or policy show [NAME]"
        )


def _lines(state: State, asked: list[bytes]) -> Iterator[bytes]:
    """``name, source, key=value ...``: all policies, or the one that a function has."""
    policies = state.policies
    if asked:
        state.cost += policies.pattern_bytes // 2
        name = policies.name_for(asked[0])
        names = [] if name is None else [name]
    else:
        names = policies.names()
    for name in names:
        policy = policies.named(name)
        if policy is not None:
            text = policy.text.encode("utf-8", "surrogateescape")
            yield b"%b\t%b\t%b\n" % (show_name(name), policies.source(name).encode(), show_name(text))


def _pause(state: State, peer: Peer, arguments: list[bytes]) -> None:
    name = arguments[0]
    if name not in state.functions and not state.may_create(name):
        refuse(peer, b"NO_ROOM", "The job server has no room for this function, or its name is too long")
        return
    who = peer.shown_name
    if len(arguments) > 1:
        who += b": " + b" ".join(arguments[1:])[:200]
    function = state.create_function(name)
    if not keep_pause(state, function, who):
        refuse(peer, b"NO_ROOM", "It can't be kept: the memory is full, or the store takes nothing at the moment")
        return
    state.event("function_paused", peer, {"function": function.shown.decode("utf-8", "backslashreplace")})
    acknowledge(state, peer)


def _resume(state: State, peer: Peer, arguments: list[bytes]) -> None:
    function = state.functions.get(arguments[0])
    if len(arguments) != 1 or function is None or not resume(state, function):
        refuse(peer, b"NOT_PAUSED", f"{arguments[0]!r} is not paused")
        return
    state.event("function_resumed", peer, {"function": function.shown.decode("utf-8", "backslashreplace")})
    acknowledge(state, peer)


COMMANDS: Final[dict[bytes, tuple[Callable[[State, Peer, list[bytes]], None], int, int]]] = {
    b"policy": (_policy, READ | OPERATE, 1),
    b"pause": (_pause, OPERATE, 1),
    b"resume": (_resume, OPERATE, 1),
}
"""As the table in ``admin``: the rule of each, the right it needs, and how many arguments make it known."""
