"""Says so where a policy names a webhook and nobody calls it, since that is done by whoever serves HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host
    from geartrain.jobserver import Peer

log: Final = logging.getLogger("geartrain.daemon")


class UncalledWebhooks(Extension):
    """To be attached behind all that may call webhooks."""

    def start(self, host: Host) -> None:
        self._server = host.server
        policies = host.server.policies
        names = [as_text(name) for name in policies.names() if (policy := policies.named(name)) and policy.webhook]
        if names:
            self._tell(names[0], len(names))

    def hear(self, event: str, peer: Peer | None, fields: Mapping[str, object]) -> None:
        if event == "policy_set" and any(key.startswith("webhook=") for key in str(fields["policy"]).split()):
            self._tell(str(fields["name"]), 1)

    def _tell(self, policy: str, policies: int) -> None:
        if self._server.end_watcher is None:
            fields = {"policy": policy, "policies": policies, "remedy": "webhooks are called by --http: serve it too"}
            log.warning("webhook_not_called", extra={"fields": fields})
