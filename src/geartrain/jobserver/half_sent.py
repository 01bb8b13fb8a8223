"""Packets that have not come whole: how long they may take, and how much memory all of them may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.native import i64
from geartrain.wire.parser import LARGE

if TYPE_CHECKING:
    from geartrain.jobserver.model import Peer
    from geartrain.jobserver.state import State

BYTES_A_SECOND: Final = 64 * 1024  # a half-sent packet that grows at this rate is in time


def watch_half_sent(state: State, peer: Peer, whole: bool) -> bool:
    """Note when a half-sent packet begins, and when it has come ``whole``: then what waits is another one.

    False if all half-sent packets together take too much memory, and this peer is to be hung up on; it got the ERROR.
    """
    if not peer.parser.waiting or peer.stalled:
        if peer.half_sent_since > 0:
            forget_half_sent(state, peer)
        return True
    if whole or peer.half_sent_since == 0:
        peer.half_sent_since = state.now if state.now > 0 else 1e-9
        if not state.half_sent:
            state.half_sent_checked_at = state.now
        state.half_sent[peer] = None
    size = 0 if peer.parser.skipping else came(peer)
    state.half_sent_size += size - peer.half_sent
    peer.half_sent = size
    limit: i64 = state.settings.max_half_sent
    if size <= LARGE or limit <= 0 or state.half_sent_size <= limit:
        return True
    peer.send_error(b"QUEUE_ERROR", b"The job server's memory for half-sent packets is full")
    state.event("memory_full", peer, {"half_sent": int(state.half_sent_size), "limit": int(limit)})
    return False


def forget_half_sent(state: State, peer: Peer) -> None:
    """Nothing half-sent is waited for from this peer."""
    peer.half_sent_since = 0.0
    state.half_sent_size -= peer.half_sent
    peer.half_sent = 0
    state.half_sent.pop(peer, None)


def came(peer: Peer) -> i64:
    """How many bytes of the peer's half-sent packet are here."""
    parser = peer.parser
    if parser.pieces is None:
        return parser.size - parser.at
    return parser.end - parser.at - parser.missing
