"""What the parts of the HTTP face share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from geartrain.web.access import Access
from geartrain.web.events import Events
from geartrain.web.history import History
from geartrain.web.live import Live
from geartrain.web.requests import Bodies
from geartrain.web.submitting import Submitting
from geartrain.web.webhooks import Webhooks

if TYPE_CHECKING:
    from geartrain.daemon.config import Config
    from geartrain.daemon.extension import Host
    from geartrain.web.audit import Audit


class Face:
    """The options, the daemon, and the parts that others use."""

    def __init__(self, config: Config, host: Host, audit: Audit) -> None:
        self.config = config
        self.host = host
        self.server = host.server
        self.access = Access(
            {name: (token.digest, token.roles) for name, token in config.tokens.items()}, config.http_host
        )
        self.audit = audit
        self.events = Events(host.server)
        self.submitting = Submitting(host, config.max_packet, self.events.follow)
        self.bodies = Bodies(config.max_packet, config.max_half_sent or 2**62, config.packet_timeout)
        self.webhooks = Webhooks(self)
        self.history = History(host, config.max_history)
        self.live = Live(host, config, self.history)
        self.listing = asyncio.Lock()  # so that all long listings together take no more of an iteration than one
        self.refused = 0  # connections beyond their number
