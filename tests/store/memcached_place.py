"""Clusters of memcached for tests, and places of stores in them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator

from place import Place, batch, opened
from pymemcache.client.base import Client  # type: ignore[import-untyped]

from geartrain.store import Store, StoreError
from geartrain.store.memcached import MemcachedStore
from geartrain.store.memcached.names import placed_segment
from geartrain.store.memcached.node import State
from geartrain.store.memcached.segment import cut
from servers import free_port, wait_until
from services import Memcached, running

NewNamespace = Callable[[], str]


@contextlib.contextmanager
def cluster(nodes: int, *options: str) -> Iterator[list[Memcached]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running(Memcached, "-M", *options)) for _ in range(nodes)]


def url_of(services: list[Memcached], namespace: str) -> str:
    return f"memcached://{','.join(f'127.0.0.1:{service.port}' for service in services)}?namespace={namespace}"


def cut_connections(services: list[Memcached]) -> None:
    """End all connections of this process to the services."""
    ports = {service.port for service in services}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            number = int(name)
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as connection:
                if connection.getpeername()[1] in ports:
                    connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def hanging(services: list[Memcached]) -> Iterator[None]:
    """Nodes that do not answer, and then come back with all they had."""
    for service in services:
        assert service.process is not None
        os.kill(service.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for service in services:
            assert service.process is not None
            os.kill(service.process.pid, signal.SIGCONT)


def die(store: MemcachedStore) -> None:
    """Leave the store as a killed process would: nothing is released, its connections end."""
    if store._repairer is not None:
        store._repairer.close()
        store._repairer = None
    if store._holder is not None:
        store._holder.close()
        store._holder = None
    store.close()


def wait_until_whole(store: Store) -> None:
    """Until every job has all its copies again."""
    assert isinstance(store, MemcachedStore)
    cluster = store._cluster

    def whole() -> bool:
        with contextlib.suppress(StoreError):
            store.commit(batch())  # notices what has happened to the nodes
        return not cluster.changed and all(node.state is State.IN for node in cluster.nodes)

    wait_until(whole, "every job has all its copies", 30)


class MemcachedPlace(Place):
    def __init__(self, services: list[Memcached], new_namespace: NewNamespace) -> None:
        self.services = services
        self.namespace = new_namespace()
        self.crashed = 0
        super().__init__(url_of(services, self.namespace), url_of(services, new_namespace()))

    def cut(self) -> None:
        cut_connections(self.services)

    def crash(self) -> None:
        self.crashed += 1
        self.services[self.crashed % len(self.services)].kill()

    def revive(self) -> None:
        """Start the node again, and wait until it is filled: before that, no other one may die."""
        service = self.services[self.crashed % len(self.services)]
        service.start()
        with contextlib.closing(Client(("127.0.0.1", service.port))) as client:
            wait_until(lambda: client.get(f"{self.namespace}.head") is not None, "it is filled")

    def records_kept(self, store: Store) -> int:
        assert isinstance(store, MemcachedStore)
        return len(store._log.entries)

    def aliases(self) -> list[str]:
        local = [f"localhost:{service.port}" for service in self.services]
        return [
            url_of(self.services[::-1], self.namespace),
            f"memcached://{','.join(local[:2])}?namespace={self.namespace}",
        ]

    def steal(self) -> None:
        for service in self.services:
            with contextlib.closing(Client(("127.0.0.1", service.port))) as client:
                client.delete(f"{self.namespace}.lease")  # as if it had run out
        with opened(self.url):
            pass

    def empty(self) -> None:
        for service in self.services:
            with contextlib.closing(Client(("127.0.0.1", service.port))) as client:
                client.flush_all(noreply=False)

    def spoil(self, number: int) -> None:
        with contextlib.closing(MemcachedStore(self.url)) as store:
            store.open()
            home = store._log.home[number]
            key = store._names.segment(store._cluster.manifest, home.n)
            [(_, segment)] = store._contents.segments([home])
            at = segment.numbers.index(number)
            segment.records = list(segment.records)
            segment.records[at] = b"\xff" * len(segment.records[at])
            store._cluster.keep([(placed_segment(home.n), cut(key, segment.dump()))])

    def nowhere(self) -> str:
        return f"memcached://127.0.0.1:{free_port()},127.0.0.1:{free_port()}?namespace={self.namespace}"

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        with cluster(2, "-m", "12") as services:

            def make_room() -> None:
                for service in services:
                    with contextlib.closing(Client(("127.0.0.1", service.port))) as client:
                        client.cache_memlimit(200)

            yield url_of(services, self.namespace), make_room
