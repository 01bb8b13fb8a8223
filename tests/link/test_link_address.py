"""Server lists as people and libgearman write them."""

from __future__ import annotations

import pytest

from geartrain.errors import AddressError
from geartrain.link import Address, parse_addresses


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("box", Address("box", 4730), "box:4730"),
        ("box:7003", Address("box", 7003), "box:7003"),
        (" box:7003 ", Address("box", 7003), "box:7003"),
        ("127.0.0.1", Address("127.0.0.1", 4730), "127.0.0.1:4730"),
        (":7003", Address("localhost", 7003), "localhost:7003"),
        ("box:", Address("box", 4730), "box:4730"),
        ("box:0", Address("box", 4730), "box:4730"),
        ("[::1]", Address("::1", 4730), "[::1]:4730"),
        ("[::1]:7003", Address("::1", 7003), "[::1]:7003"),
        ("[fe80::1%eth0]:7003", Address("fe80::1%eth0", 7003), "[fe80::1%eth0]:7003"),
        ("unix:/run/gearman.sock", Address(path="/run/gearman.sock"), "unix:/run/gearman.sock"),
        ("unix:///run/gearman.sock", Address(path="/run/gearman.sock"), "unix:/run/gearman.sock"),
        ("unix:@gearman", Address(path="@gearman"), "unix:@gearman"),
    ],
)
def test_one_server(text: str, address: Address, written: str) -> None:
    assert Address.parse(text) == address
    assert str(address) == written
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("::1", "brackets"),
        ("::1:4730", "brackets"),
        ("[::1", "IPv6"),
        ("[::1]4730", "IPv6"),
        ("box:gearman", "'gearman' is not a number"),
        ("box:-1", "not a number"),
        ("box:70000", "70000 is not between"),
        ("my box", "not the name"),
        ("box/4730", "not the name"),
        ("tcp://box:4730", "leave out tcp://"),
        ("unix:gearman", "unix:/path"),
        ("unix:", "unix:/path"),
    ],
)
def test_nonsense_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(AddressError, match=why) as caught:
        Address.parse(text)
    assert text in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_list_keeps_its_order_and_drops_repetitions() -> None:
    both = (Address("b"), Address("a", 7003))
    assert parse_addresses("b,a:7003") == both
    assert parse_addresses(" b , a:7003 ,, b:4730") == both
    assert parse_addresses(["b", "a:7003"]) == both
    assert parse_addresses(["b,a:7003", Address("b")]) == both
    assert parse_addresses(Address("b")) == both[:1]


def test_the_default_is_the_environment_and_then_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEARMAN_SERVERS", raising=False)
    assert parse_addresses() == (Address("localhost", 4730),)
    monkeypatch.setenv("GEARMAN_SERVERS", "")
    assert parse_addresses() == (Address("localhost", 4730),)
    monkeypatch.setenv("GEARMAN_SERVERS", "a:1,b")
    assert parse_addresses() == (Address("a", 1), Address("b", 4730))
    assert parse_addresses("c") == (Address("c"),)


@pytest.mark.parametrize("servers", ["", ",", [], [""]])
def test_a_list_without_a_server_is_refused(servers: str | list[str]) -> None:
    with pytest.raises(AddressError, match="at least one"):
        parse_addresses(servers)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(AddressError, match="4730 is not an address"):
        parse_addresses([4730])  # type: ignore[list-item]


def test_addresses_are_keys_and_show_themselves() -> None:
    assert len({Address("a"), Address.parse("a:4730"), Address("b")}) == 2
    assert repr(Address("a")) == "<Address a:4730>"
