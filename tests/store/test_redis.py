"""The store in Redis and in Valkey: the contract, and what else such a server is asked."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import campaign
import pytest
from contract import StoreContract
from place import (
    NO_LIMIT,
    Place,
    batch,
    fields,
    insist,
    is_refused,
    job,
    kept,
    numbers,
    opened,
    records_of,
    until_rebuilt,
)
from redis import Redis as Client

from certificates import tls_contexts
from geartrain.jobserver.records import Record
from geartrain.store import Store, StoreDownError, StoreError, StoreFullError, StoreInUseError, Unreadable, engine
from geartrain.store.redis.server import Server
from geartrain.store.writer import taken_back
from servers import free_port, wait_until
from services import PASSWORD, SECRETS, Redis, Valkey, running

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

    def records_kept(self, store: Store) -> int:
        with self.client() as client:
            return int(client.hlen(self.key("records")))

    def aliases(self) -> list[str]:
        return [self.url.replace("@127.0.0.1", "@localhost"), self.url.replace("/0?", "?") + "&db=0"]

    def steal(self) -> None:
        with self.client() as client:
            client.set(self.key("owner"), foreign_lease(0).rpartition(b" ")[0])

    def empty(self) -> None:
        with self.client() as client:
            client.delete(*client.keys(f"{{{self.namespace}}}:*"))

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


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with running(Redis) as service:
        yield service


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    if shutil.which(Valkey.program) is None:
        # Even in CI: Debian packages it from its release 13 on, and no test harness can install what is not there.
        pytest.skip("needs valkey-server, which this release of Debian does not have")
    with running(Valkey) as service:
        yield service


@pytest.fixture
def place(redis: Redis, new_namespace: NewNamespace) -> RedisPlace:
    return RedisPlace(redis, new_namespace)


class TestRedis(StoreContract):
    @pytest.fixture
    def place(self, redis: Redis, new_namespace: NewNamespace) -> RedisPlace:
        return RedisPlace(redis, new_namespace)


class TestValkey(StoreContract):
    @pytest.fixture
    def place(self, valkey: Valkey, new_namespace: NewNamespace) -> RedisPlace:
        return RedisPlace(valkey, new_namespace)


# What it promises


def test_it_says_what_it_survives_as_it_is_set_up(place: RedisPlace) -> None:
    said = {}
    with place.client() as client:
        before = client.config_get("appendfsync", "appendonly", "save")
        try:
            for name, value in [("appendfsync", "always"), ("appendfsync", "everysec"), ("appendonly", "no"),
                                ("save", "3600 1")]:  # fmt: skip
                client.config_set(name, value)
                with opened(place.url) as store:
                    said[f"{name} {value}"] = store.abilities.survives
        finally:
            for name, value in before.items():
                client.config_set(name, value)
    assert "and a power cut" in said["appendfsync always"]
    assert "two seconds" in said["appendfsync everysec"]
    assert "loses all" in said["appendonly no"]
    assert "last snapshot" in said["save 3600 1"]


def test_it_says_that_it_is_not_told() -> None:
    with running(Redis, "--rename-command", "CONFIG", "") as service, opened(service.url()) as store:
        assert "unknown" in store.abilities.survives
        assert "appendfsync unknown" in store.abilities.survives


def test_what_may_be_thrown_away_is_refused(place: RedisPlace) -> None:
    with place.client() as client:
        try:
            client.config_set("maxmemory", 100 << 20)
            client.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(StoreError, match="maxmemory-policy noeviction"):
                engine(place.url).open()
            with opened(place.url + "&accept_eviction=yes") as store:
                assert numbers(store) == []
            client.config_set("maxmemory-policy", "volatile-lru")  # jobs have no time to live
            with opened(place.url) as store:
                assert numbers(store) == []
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 0)


def test_every_second_means_that_only_the_last_batches_may_be_lost(new_namespace: NewNamespace) -> None:
    with running(Redis, "--appendfsync", "everysec") as service:
        url = service.url(new_namespace())
        done = 0
        for _ in range(3):
            with opened(url) as store:
                before = time.monotonic()
                at = {}
                for i in range(done + 1, done + 60):
                    store.commit(campaign.batch(i))
                    at[i] = time.monotonic() - before
                service.kill()
                lived = time.monotonic() - before
            service.start()
            with opened(url) as store:
                found = kept(store)
            candidates = {i: [fields(each) for each in campaign.after(i)] for i in range(done, done + 60)}
            done = next(i for i, expected in candidates.items() if found == expected)
            assert all(lived - moment <= 2.0 for i, moment in at.items() if i > done)


def _replica_of(client: Client) -> dict[str, Any]:
    return client.info("replication").get("slave0", {})  # type: ignore[no-any-return]


def test_replicas_are_waited_for(place: RedisPlace, redis: Redis) -> None:
    with running(Redis, "--replicaof", f"127.0.0.1 {redis.port}", "--masterauth", PASSWORD):
        with place.client() as client:
            client.config_set("repl-diskless-sync-delay", 0)
            wait_until(lambda: _replica_of(client).get("state") == "online", "the replica follows")
        with opened(place.url + "&wait=1") as store:
            assert "1 replica has it" in store.abilities.survives
            store.commit(batch(job(1, b"one")))
            assert store.read(1) == b"one"


def test_a_replica_that_is_gone_is_named_and_a_replica_is_no_store(
    place: RedisPlace, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geartrain.store.redis.server.REPLICAS_TIMEOUT", 1)
    with opened(place.url + "&wait=1") as store, pytest.raises(StoreDownError, match="0 of 1 replicas"):
        store.commit(batch(job(1)))
    following = running(Redis, "--replicaof", f"127.0.0.1 {redis.port}", "--masterauth", PASSWORD)
    with following as replica, pytest.raises(StoreError, match="replica"):
        engine(replica.url(place.namespace)).open()


def test_it_is_reached_by_tls(new_namespace: NewNamespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        tls_contexts(folder)
        folder.chmod(0o755)
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        key.chmod(0o644)  # it runs as a user of its own
        options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
                   "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]  # fmt: skip
        with running(Redis, *options) as service:
            url = (
                service.url(new_namespace()).replace("redis://", "rediss://").replace(f":{service.port}/", f":{port}/")
            )
            with opened(f"{url}&ssl_ca_certs={certificate}") as store:
                store.commit(batch(job(1)))
                assert numbers(store) == [1]
            with pytest.raises(StoreDownError, match="certificate"):
                engine(url).open()


# Who uses it


def foreign_lease(beat: int) -> bytes:
    return b"elsewhere 42 2026-01-01T00:00:00 another-machine/1 0123456789abcdef %d" % beat


def test_a_user_on_another_machine_that_lives_is_named(place: RedisPlace) -> None:
    errors: list[BaseException] = []
    beats = itertools.count()
    with place.client() as client:

        def renew() -> None:
            client.set(place.key("lease"), foreign_lease(next(beats)), px=60_000)

        def refused() -> bool:
            renew()
            return bool(errors)

        renew()
        opening = threading.Thread(target=_expect, args=(engine(place.url).open, errors))
        opening.start()
        wait_until(refused, "the second is refused")
        opening.join(5)
    assert isinstance(errors[0], StoreInUseError)
    assert "process 42 on elsewhere" in str(errors[0])


def test_a_user_on_another_machine_that_died_is_waited_for(place: RedisPlace) -> None:
    with place.client() as client:
        client.set(place.key("lease"), foreign_lease(1), px=700)
        before = time.monotonic()
        with opened(place.url) as store:
            assert time.monotonic() - before > 0.5
            store.commit(batch(job(1)))


def test_who_lost_the_place_writes_nothing_more(place: RedisPlace) -> None:
    with opened(place.url) as first:
        first.commit(batch(job(1), job(2), next_number=3))
        with place.client() as client:
            client.delete(place.key("lease"))  # as if it had been away for longer than its lease
        with opened(place.url) as second:
            assert numbers(second) == [1, 2]
            for change in (batch(job(3)), batch(removed=(1,)), batch(moved=((1, 9, 9),)), batch(next_number=99)):
                with pytest.raises(StoreInUseError):
                    first.commit(change)
            with pytest.raises(StoreInUseError):
                first.quarantine(1, "no business of yours")
            assert numbers(second) == [1, 2]
            assert second.next_number() == 3
            first.close()
            assert place.client().get(place.key("lease")), "the lease is the second's"
            second.commit(batch(job(3)))


@pytest.mark.parametrize("key", ["jobs", "order", "workloads"])
def test_a_key_that_was_removed_is_noticed(place: RedisPlace, key: str) -> None:
    known = [job(1, b"one"), job(2, b"large" * 1000), job(3)]
    with opened(place.url) as store, place.client() as client:
        store.commit(batch(*known, next_number=4))
        client.delete(place.key(key))
        for what in (batch(job(4)), batch(removed=(1,)), batch(), batch(moved=((1, 5, 5),))):
            assert is_refused(store, what, "was emptied")
        assert store.rebuild(known, 4) == 3
        store.commit(batch(job(4), removed=(3,)))
    with opened(place.url) as store:
        assert kept(store) == [fields(each) for each in (known[0], known[1], job(4))]


def test_a_job_that_was_removed_alone_is_noticed(place: RedisPlace) -> None:
    with opened(place.url) as store, place.client() as client:
        store.commit(batch(job(1), job(2), next_number=3))
        store.quarantine(1, "looked odd")
        store.commit(batch(job(3)))
        client.hdel(place.key("jobs"), (2).to_bytes(8))
        assert is_refused(store, batch(job(4)), "was emptied")


@pytest.mark.parametrize("member", [b"", b"short", bytes(15), bytes(17), b"x" * 40])
def test_a_member_of_the_order_that_names_no_job_is_set_aside(place: RedisPlace, member: bytes) -> None:
    with opened(place.url) as store:
        store.commit(batch(job(1)))
    with place.client() as client:
        client.zadd(place.key("order"), {member: 0})
    with opened(place.url) as store:
        assert [each.number for each in store.load(NO_LIMIT) if isinstance(each, Unreadable)] == [0]
        assert numbers(store) == [1]
        store.commit(batch(job(2)))


@pytest.mark.parametrize("value", ["x", "-1", "9" * 5000])
def test_a_next_number_that_makes_no_sense_follows_from_the_jobs(place: RedisPlace, value: str) -> None:
    with place.client() as client:
        client.hset(place.key("meta"), "next_number", value)
    with opened(place.url) as store:
        assert store.next_number() == 1


def test_an_older_snapshot_is_noticed(place: RedisPlace) -> None:
    """As after a crash without an append-only file, or when a replica took over that had not heard of all."""
    with opened(place.url) as store, place.client() as client:
        store.commit(batch(job(1), next_number=2))
        snapshot = {key: client.dump(key) for key in client.keys(place.key("*")) if b"lease" not in key}
        store.commit(batch(job(2)))
        store.commit(batch(removed=(1,)))
        for key, dumped in snapshot.items():
            client.restore(key, 0, dumped, replace=True)
        for what in (batch(job(3)), batch(removed=(2,)), batch()):
            assert is_refused(store, what, "without its latest data")
        assert numbers(store) == [1]
        assert until_rebuilt(store, [job(2)], 3) == 1
        store.commit(batch(job(3), removed=(1,)))
        assert numbers(store) == [2, 3]
    with opened(place.url) as store:
        assert numbers(store) == [2, 3]
        store.commit(batch(job(4)))


def test_a_commit_whose_answer_is_lost_may_be_taken_back(place: RedisPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Server.run

    def lose_the_answer(*arguments: Any) -> None:
        run(*arguments)
        raise StoreDownError("no answer")

    with opened(place.url) as store:
        store.commit(batch(job(1), next_number=2))
        refused = batch(job(2), next_number=3)
        with monkeypatch.context() as patch:
            patch.setattr(Server, "run", lose_the_answer)
            with pytest.raises(StoreDownError):
                store.commit(refused)
        store.commit(taken_back(refused))
        store.commit(batch(job(3)))
        assert numbers(store) == [1, 3]


def test_a_newer_layout_is_left_alone(place: RedisPlace) -> None:
    with place.client() as client:
        client.hset(place.key("meta"), "version", 2)
    with pytest.raises(StoreError, match="newer geartrain"):
        engine(place.url).open()


@pytest.mark.parametrize("field", ["version", "commits"])
@pytest.mark.parametrize("value", ["x", "", "1.5", "-1", "01", "9" * 5000])
def test_a_number_that_makes_no_sense_is_named(place: RedisPlace, field: str, value: str) -> None:
    with place.client() as client:
        client.hset(place.key("meta"), field, value)
    with pytest.raises(StoreError, match=f"{field} in the hash .*:meta is b'{value[:40]}'"):
        engine(place.url).open()


def test_version_0_is_named(place: RedisPlace) -> None:
    with place.client() as client:
        client.hset(place.key("meta"), "version", 0)
    with pytest.raises(StoreError, match=r"version in the hash .*:meta is b'0'"):
        engine(place.url).open()


# When it refuses


def test_a_redis_that_cannot_write_to_its_disk_says_so(place: RedisPlace, redis: Redis) -> None:
    with place.client() as client, opened(place.url) as store:
        store.commit(batch(job(1)))
        client.config_set("save", "3600 1")
        try:
            os.chmod(redis.folder, 0o500)
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "a failed snapshot")
            with pytest.raises(StoreFullError, match="disk"):
                store.commit(batch(job(2)))
            os.chmod(redis.folder, 0o700)
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "a snapshot")
            store.commit(batch(job(2)))
        finally:
            os.chmod(redis.folder, 0o700)
            client.config_set("save", "")
        assert numbers(store) == [1, 2]


def test_a_redis_that_hangs_is_given_up_in_time(
    redis: Redis, new_namespace: NewNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geartrain.store.redis.server.ANSWER_TIMEOUT", 0.5)
    with opened(redis.url(new_namespace())) as store:
        assert redis.process is not None
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            before = time.monotonic()
            with pytest.raises(StoreDownError, match=r"[Tt]imeout"):
                store.commit(batch(job(1)))
            assert time.monotonic() - before < 5
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        insist(store, batch(job(1), job(2)))
        assert numbers(store) == [1, 2]


def test_a_full_redis_forgets(place: RedisPlace) -> None:
    with place.client() as client, opened(place.url) as store:
        store.commit(batch(*[job(n, b"x" * 5000) for n in range(1, 101)]))
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreFullError, match="maxmemory"):
                store.commit(batch(job(101), moved=((1, 0, 1),), removed=(50,)))
            store.commit(batch(removed=tuple(range(51, 101))))
            assert numbers(store) == list(range(1, 50))
        finally:
            client.config_set("maxmemory", 0)
        store.commit(batch(job(101), moved=((1, 0, 1),), removed=(50,)))
        assert numbers(store) == [*range(1, 50), 101]


@pytest.mark.parametrize(
    "entry",
    [(b"a\0short", b"1234567"), (b"a\0empty", b""), (b"\xff\0key", bytes(9)), (b"", bytes(9)),
     (b"No Kind\0k", bytes(9)), (b"a\0past", struct.pack(">d", -1)), (b"a\0never", struct.pack(">d", math.nan) + b"v")],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_passed_over(
    place: RedisPlace, entry: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(place.url) as store, place.client() as client:
        store.commit(batch(records=(Record("a", b"1", b"v"), Record("a", b"2", b"w"))))
        client.hset(place.key("records"), *entry)
        assert records_of(store) == {("a", b"1"): (b"v", 0.0), ("a", b"2"): (b"w", 0.0)}
    assert [each.message for each in caplog.records] == ["record_unreadable"]


def test_what_is_quarantined_can_be_looked_at(place: RedisPlace) -> None:
    with opened(place.url) as store, place.client() as client:
        store.commit(batch(job(7, b"w" * 5000)))
        store.quarantine(7, "looked odd")
        aside = client.hgetall(place.key("set_aside"))
        assert aside[b"7 reason"] == b"looked odd"
        assert aside[b"7 workload"] == b"w" * 5000
        assert {client.exists(place.key(name)) for name in ("jobs", "workloads", "order")} == {0}


@pytest.mark.parametrize("option", ["namespace=No+Good", "wait=few", "accept_eviction=maybe", "nobody_knows=1"])
def test_an_option_that_makes_no_sense_is_named(place: RedisPlace, option: str) -> None:
    with pytest.raises(StoreError, match=option.partition("=")[0]):
        engine(place.url.partition("?")[0] + "?" + option).open()


def _expect(act: Callable[[], None], errors: list[BaseException]) -> None:
    try:
        act()
    except BaseException as error:
        errors.append(error)
