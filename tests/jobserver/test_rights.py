"""A connection does what its origin gives it the right to, and is told what it may not."""

from __future__ import annotations

import pytest
from world import request

from conversation import PACKETS
from geartrain.jobserver import JobServer, Origin, Peer
from geartrain.jobserver.dispatch import ANYBODY, RULES
from geartrain.jobserver.rights import EVERYTHING, OPERATE, READ, SUBMIT, WORK
from geartrain.jobserver.rules.admin import COMMANDS
from geartrain.wire.packets import LAYOUTS

RIGHTS = {"submit": SUBMIT, "work": WORK, "read": READ, "operate": OPERATE}
EACH_RIGHT = pytest.mark.parametrize("right", RIGHTS.values(), ids=RIGHTS)


def connected(rights: int) -> tuple[JobServer, Peer]:
    server = JobServer()
    server.tick(1.0, 1.8e9)
    return server, server.connect(Origin("10.0.0.7", 5, rights))


def answer(server: JobServer, peer: Peer, data: bytes) -> bytes:
    server.receive(peer, data)
    return b"".join(peer.take())


@EACH_RIGHT
@pytest.mark.parametrize("type", sorted(RULES), ids=lambda type: LAYOUTS[type][0])
def test_a_packet_needs_the_right_that_the_table_says(type: int, right: int) -> None:
    server, peer = connected(right)
    name = LAYOUTS[type][0]
    refused = b"NOT_ALLOWED" in answer(server, peer, request(name, *[b"1"] * PACKETS[name][1]))
    assert refused == (RULES[type][1] != ANYBODY and not RULES[type][1] & right)
    assert [name for name, _, _ in server.take_events()].count("request_refused") == refused
    if refused:
        assert not server.functions
        assert not server.jobs


@EACH_RIGHT
@pytest.mark.parametrize("command", sorted(COMMANDS), ids=bytes.decode)
def test_a_text_command_needs_the_right_that_the_table_says(command: bytes, right: int) -> None:
    server, peer = connected(right)
    refused = b"ERR NOT_ALLOWED" in answer(server, peer, command + b" function x\n")
    assert refused == (not COMMANDS[command][1] & right)
    if refused:
        assert not server.functions


@pytest.mark.parametrize("rights", [EVERYTHING, EVERYTHING & ~OPERATE], ids=["everything", "a part"])
def test_a_job_is_done_with_the_rights_for_it(rights: int) -> None:
    """The frequent packets are told apart elsewhere when a peer may do everything."""
    server, peer = connected(rights)
    job = request("CAN_DO", b"f") + request("SUBMIT_JOB", b"f", b"", b"x") + request("GRAB_JOB")
    done = request("WORK_COMPLETE", b"H:localhost:1", b"y") + request("PRE_SLEEP")
    assert answer(server, peer, job + done).endswith(b"H:localhost:1\0y")
    assert peer.sleeping
