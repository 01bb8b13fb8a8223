"""A job server with webhooks, and a text command that attaches one: ``attach HANDLE URL SECRET``.

python webhook_server.py PORT OPTION=VALUE ...
"""

from __future__ import annotations

import asyncio
import sys
import time

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.keeper import Keeper
from geartrain.daemon.log import Log
from geartrain.daemon.transport import choose, loop_factory
from geartrain.jobserver import JobServer, Peer
from geartrain.jobserver.rights import OPERATE
from geartrain.store import engine
from geartrain.web.webhooks import Webhooks


class Attaching(Extension):
    """Has webhooks, as the HTTP face does."""

    host: Host
    server: JobServer

    def __init__(self, config: Config) -> None:
        self.config = config

    def start(self, host: Host) -> None:
        self.host, self.server = host, host.server
        self.webhooks = Webhooks(self)
        self.webhooks.start()
        self.server.add_command(b"attach", self._attach, OPERATE)
        self.server.add_command(b"webhooks", self._count, OPERATE)

    def stop(self, seconds: float) -> None:
        self.webhooks.stop()

    def _attach(self, peer: Peer, words: list[bytes]) -> None:
        number = int(words[0].rpartition(b":")[2])
        try:
            done = self.webhooks.attach(number, words[1].decode(), words[2].decode() if words[2:] else None)
            self.server.acknowledge(peer, b"OK\r\n" if done else b"ERR no\r\n")
        except ValueError as error:
            peer.send(b"ERR %b\r\n" % str(error).encode())

    def _count(self, peer: Peer, words: list[bytes]) -> None:
        hooks = self.webhooks
        counts = (hooks.attached, hooks.pending, hooks.delivered, hooks.failed, hooks.dropped)
        peer.send(b"OK %d %d %d %d %d\r\n" % counts)


async def main(config: Config) -> None:
    log_output = Log(config.log_file)
    server = JobServer(config.rules())
    server.tick(time.monotonic(), time.time())
    extensions: list[Extension] = [Attaching(config)]
    if server.durable:
        keeper = Keeper(server, engine(config.store), config.store_timeout)
        keeper.load()
        extensions.insert(0, keeper)
    daemon = Daemon(config, server, extensions)
    asyncio.get_running_loop().add_signal_handler(15, daemon.stop, "SIGTERM")
    await daemon.start(config.sockets())
    await daemon.run()
    log_output.close()


if __name__ == "__main__":
    port, *options = sys.argv[1:]
    flags = dict(option.split("=", 1) for option in options)
    config = Config.load({"listen": ["127.0.0.1"], "port": port, "store": "memory:"} | flags)
    with asyncio.Runner(loop_factory=loop_factory(choose(config.transport))) as runner:
        runner.run(main(config))
