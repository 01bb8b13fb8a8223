"""The 55 test vectors of the protocol reference, section 11.

V01 to V47 are one session over one job server, V48 to V51 what libgearman's tools send. V52 to V55 belong to the HTTP
listener, which the job server itself does not have.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conversation import Conversation, read_conversation
from geartrain.wire.packets import pack_request
from geartrain.wire.parser import Parser
from players import OURS, REFEREE, MemoryPlayer, SocketPlayer, forked_geartrain
from servers import running_gearmand

FILES = sorted(Path(__file__).with_name("vectors").glob("*.txt"))
VECTORS = [read_conversation(path) for path in FILES]
EACH = pytest.mark.parametrize("vectors", VECTORS, ids=lambda vectors: vectors.path.stem)

IN_PIECES = pytest.mark.parametrize("piece", [1 << 30, 7, 1], ids=["whole", "in-sevens", "byte-by-byte"])


@EACH
@IN_PIECES
def test_the_rules_answer_as_captured(vectors: Conversation, piece: int) -> None:
    MemoryPlayer([], piece=piece).play(vectors)


@EACH
def test_our_daemon_answers_as_captured(vectors: Conversation) -> None:
    with forked_geartrain(*OURS) as port:
        SocketPlayer("geartrain", port).play(vectors)


@EACH
def test_gearmand_answers_as_captured(vectors: Conversation) -> None:
    with running_gearmand(*REFEREE) as server:
        SocketPlayer("gearmand", server.port).play(vectors)


def test_what_libgearman_sends_is_read_and_packed_alike() -> None:
    steps = next(vectors.steps for vectors in VECTORS if vectors.path.stem == "libgearman")
    sent = [message.sent(0) for step in steps if step.verb == "->" for message in step.messages]
    packets = [data for data in sent if data[0] == 0]
    assert packets
    for data in packets:
        parser, packed = Parser(), b""
        parser.feed(data)
        while packet := parser.next_packet():
            packed += pack_request(packet.type, *packet.arguments)
        assert packed == data


def test_no_vector_is_missing() -> None:
    numbers = {int(number) for path in FILES for number in re.findall(r"^# V(\d+) ", path.read_text(), re.M)}
    assert numbers == set(range(1, 52))
