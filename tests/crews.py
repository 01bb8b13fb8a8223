"""A fleet for tests: some job servers on one database, each of which may be killed, stopped, frozen."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator

from servers import RunningServer, free_port, running_geartrain, wait_until
from services import SqlService

_numbers = itertools.count(1)


class Crew:
    """The members of one fleet, by letters."""

    def __init__(self, service: SqlService, stack: contextlib.ExitStack, *options: str) -> None:
        self.service = service
        self.namespace = f"fleet_{next(_numbers)}"
        self.url = service.url(self.namespace)
        self.options = options
        self.servers: dict[str, RunningServer] = {}
        self._stack = stack
        self._stops: dict[str, contextlib.ExitStack] = {}

    def start(self, name: str, *options: str, port: int = 0) -> RunningServer:
        """Start a member, and return when it answers."""
        port = port or free_port()
        its = self._stack.enter_context(contextlib.ExitStack())
        server = its.enter_context(
            running_geartrain(
                "--fleet=mill", f"--advertise=127.0.0.1:{port}", *self.options, *options, port=port, store=self.url
            )
        )
        self.servers[name] = server
        self._stops[name] = its
        return server

    def stop(self, name: str) -> None:
        """Stop a member as an operator does."""
        self._stops.pop(name).close()
        del self.servers[name]

    def kill(self, name: str) -> RunningServer:
        """Kill a member with no chance to tidy up."""
        server = self.servers.pop(name)
        server.process.kill()
        server.process.wait()
        return server

    def freeze(self, name: str) -> None:
        """Let a member stand still."""
        self.servers[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.servers[name].process.send_signal(signal.SIGCONT)

    def members(self, at: str) -> dict[int, list[str]]:
        """What a member says of all: the words of each line of ``fleet status`` behind the id."""
        rows = [line.split("\t") for line in self.servers[at].ask("fleet status")]
        return {int(row[0]): row[1:] for row in rows}

    def me(self, name: str) -> int:
        """The id of a member, once it is live."""
        found: list[int] = []

        def is_live() -> bool:
            found[:] = [id for id, row in self.members(name).items() if row[-1] == "1" and row[1] == "live"]
            return bool(found)

        wait_until(is_live, f"{name} is live")
        return found[0]

    def live(self, at: str) -> set[str]:
        """The addresses of the live members, as one of them sees it."""
        return {row[0] for row in self.members(at).values() if row[1] == "live"}

    def meet(self) -> None:
        """Return when all that run know each other."""
        all_of_them = {server.address for server in self.servers.values()}
        for name in self.servers:
            wait_until(lambda name=name: self.live(name) == all_of_them, f"{name} knows all members")  # type: ignore[misc]


NewCrew = Callable[..., Crew]


@contextlib.contextmanager
def new_crew(service: SqlService, *options: str) -> Iterator[Crew]:
    """A fleet without members, all of which are stopped in the end."""
    with contextlib.ExitStack() as stack:
        crew = Crew(service, stack, *options)
        try:
            yield crew
        finally:
            for server in crew.servers.values():
                server.process.send_signal(signal.SIGCONT)
