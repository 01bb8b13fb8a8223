"""Connections that send a packet too slowly are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.half_sent import BYTES_A_SECOND, came
from geartrain.jobserver.rules.departure import hang_up

if TYPE_CHECKING:
    from geartrain.jobserver.state import State


@final
class SlowPackets(Source):
    """Looks at the half-sent packets once a second while there are any."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        return self.state.half_sent_checked_at + 1.0 if self.state.half_sent else 0.0

    def run(self) -> None:
        state = self.state
        if not state.half_sent or state.now < state.half_sent_checked_at + 1.0:
            return
        state.half_sent_checked_at = state.now
        for peer in list(state.half_sent):
            size = came(peer)
            allowed = state.settings.packet_timeout + size / BYTES_A_SECOND
            waited = state.now - peer.half_sent_since
            if waited > allowed:
                peer.send_error(b"TIMEOUT", b"The packet did not come whole within %d seconds" % int(allowed))
                state.event("packet_too_slow", peer, {"received": int(size), "seconds": int(waited)})
                hang_up(state, peer)
