"""The store in Redis and in Valkey: the contract, and what else such a server is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from contract import StoreContract
from place import Place

from redis import Redis as Client
from servers import free_port
from services import SECRETS, Redis, Valkey, running

NewNamespace = Callable[[], str]


class RedisPlace(Place):
    def __init__(self, service: Redis, new_namespace: NewNamespace) -> None:
        self.service = service
        self.namespace = new_namespace()
        super().__init__(service.url(self.namespace), service.url(new_namespace()), SECRETS)

    def client(self) -> Client:
        """A connection of the administrator."""
        return Client.from_url(self.service.url().partition("?")[0].replace("valkey", "redis", 1))

    def key(self, name: str) -> str:
        return f"{{{self.namespace}}}:{name}"

    def cut(self) -> None:
        with self.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    def crash(self) -> None:
        self.service.kill()

    def revive(self) -> None:
        self.service.start()

    def spoil(self, number: int) -> None:
        with self.client() as client:
            client.hset(self.key("jobs"), number.to_bytes(8), b"\xff" * (number % 200))

    def nowhere(self) -> str:
        return self.url.replace(f":{self.service.port}/", f":{free_port()}/")

    def wrong_password(self) -> str:
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://:guessed@{rest.partition('@')[2]}"

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        with self.client() as client:
            used = client.info("memory")["used_memory"]
            client.config_set("maxmemory", used + (8 << 20))
            try:
                yield self.url, lambda: client.config_set("maxmemory", used + (100 << 20))
            finally:
                client.config_set("maxmemory", 0)


class RedisContract(StoreContract):
    """The contract, and what else Redis and its like are asked."""


class TestRedis(RedisContract):
    @pytest.fixture(scope="class")
    def service(self) -> Iterator[Redis]:
        with running(Redis) as service:
            yield service

    @pytest.fixture
    def place(self, service: Redis, new_namespace: NewNamespace) -> RedisPlace:
        return RedisPlace(service, new_namespace)


class TestValkey(RedisContract):
    @pytest.fixture(scope="class")
    def service(self) -> Iterator[Valkey]:
        with running(Valkey) as service:
            yield service

    @pytest.fixture
    def place(self, service: Valkey, new_namespace: NewNamespace) -> RedisPlace:
        return RedisPlace(service, new_namespace)
