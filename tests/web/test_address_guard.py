"""Which addresses and URLs may be called."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from geartrain.web.address_guard import Resolver, check_url, guarded_socket, is_public


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
        "192.0.0.8", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:1.1.1.1",
        "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "2001::1",
        "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "3fff::1", "5f00::1",
        "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "", "1.1.1.1 ",
    ],
)  # fmt: skip
def test_all_others(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook?a=b", "http://example.org:8080", "https://1.1.1.1/", "https://example.org.:443/x",
        "https://[2606:4700::1111]:8443/", "https://xn--bcher-kva.example/", "HTTPS://EXAMPLE.ORG/",
    ],
)  # fmt: skip
def test_urls_that_may_be_called(url: str) -> None:
    assert check_url(url, False).host


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.org/", "http:// or https://"),
        ("//example.org/", "http:// or https://"),
        ("https:///x", "names a host"),
        ("file:///etc/passwd", "http:// or https://"),
        ("gopher://example.org:8080/", "http:// or https://"),
        ("https://example.org:22/", "the port must be one of 80, 443"),
        ("https://example.org:0/", "the port"),
        ("https://example.org:99999/", "no URL"),
        ("https://user:word@example.org/", "no user and password"),
        ("https://user@example.org/", "no user and password"),
        ("https://127.0.0.1/", "127.0.0.1 is no public address; --webhook-private allows it"),
        ("https://[::1]/", "::1 is no public address"),
        ("https://[::ffff:169.254.169.254]/", "is no public address"),
        ("https://[fe80::1%25lo]/", "is no public address"),
        ("https://2130706433/", "is no address"),
        ("https://0x7f000001/", "is no address"),
        ("https://0x7f.0.0.0x1/", "is no address"),
        ("https://0177.0.0.1/", "is no address"),
        ("https://127.1/", "is no address"),
        ("https://127.0.0.1./", "is no address"),
        ("https://example.org/a b", "%-escapes"),
        ("https://exämple.org/", "%-escapes"),
        ("https://example.org/\r\nX: y", "%-escapes"),
        ("https://example.org/" + "x" * 1000, "1000 letters"),
    ],
)
def test_urls_that_may_not(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_url(url, False)


def test_with_leave_any_host_and_port_may_be_called() -> None:
    assert check_url("http://127.0.0.1:1234/x", True).port == 1234
    assert check_url("http://localhost:22/", True).host == "localhost"
    for url in ("ftp://127.0.0.1/", "http://127.1/", "http://u:p@127.0.0.1/"):
        with pytest.raises(ValueError, match=r"http://|is no address|no user"):
            check_url(url, True)


def test_a_socket_is_made_for_a_public_address_alone() -> None:
    made = guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("1.1.1.1", 443)))
    made.close()
    for family, name in ((socket.AF_INET, ("127.0.0.1", 443)), (socket.AF_INET6, ("::1", 443, 0, 0))):
        with pytest.raises(PermissionError, match="is no public address"):
            guarded_socket((family, socket.SOCK_STREAM, 0, "", name))


class Rebinding(Resolver):
    """What a name means changes from one question to the next, as its owner likes."""

    def __init__(self, *answers: str) -> None:
        super().__init__()
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[
        aiohttp.abc.ResolveResult
    ]:  # fmt: skip
        return await super().resolve(self.answers.pop(0), port, family)


def test_a_name_that_means_another_address_at_each_question_gets_nowhere() -> None:
    """It is not the answer that counts but where the connection goes."""

    async def run() -> None:
        accepted = []
        listener = await asyncio.start_server(lambda *pair: accepted.append(pair), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        resolver = Rebinding("localhost", "127.0.0.1", "::ffff:127.0.0.1", "10.255.255.255")
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, socket_factory=guarded_socket)
        async with listener, aiohttp.ClientSession(connector=connector) as session:
            while resolver.answers:
                with pytest.raises(aiohttp.ClientConnectorError, match="is no public address"):
                    await session.post(f"http://rebinding.example:{port}/")
        assert accepted == []

    asyncio.run(run())


def test_names_that_mean_nothing_are_told() -> None:
    async def run() -> None:
        resolver = Resolver()
        (first, *_) = await resolver.resolve("127.0.0.1", 80)
        assert (first["host"], first["port"], first["family"]) == ("127.0.0.1", 80, socket.AF_INET)
        for name in ("no-such-host.invalid", "x" * 300, "a..b"):
            with pytest.raises(OSError):  # noqa: PT011 - each says it in its own way
                await resolver.resolve(name, 80)
        assert resolver._under_way == 0

    asyncio.run(run())
