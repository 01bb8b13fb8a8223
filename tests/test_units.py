"""Times and sizes are read as people write them, and what is shown is read again as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.units import read_seconds, read_size, shown_seconds, shown_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1.5m", 90), ("500ms", 0.5), (" 2 h ", 7200), ("7d", 604800), ("3", 3), (".5", 0.5)],
)
def test_times(text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64KiB", 65536), ("1.5mb", 1_500_000), ("1 GiB", 1 << 30), ("10B", 10)]
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1e3", "nan", "inf", "٣s", "5 minutes"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="write a time such as"):
        read_seconds(text)


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1TiB", "1e3", "٣", "5 bytes"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="write a size such as"):
        read_size(text)


@given(st.integers(0, 10**12))
def test_what_is_shown_is_read_again(number: int) -> None:
    assert read_size(shown_size(number)) == number
    assert read_seconds(shown_seconds(number / 1000)) == pytest.approx(number / 1000, rel=1e-9)


def test_shown_shortly() -> None:
    assert [shown_seconds(one) for one in (0, 0.25, 1.5, 60, 90, 7200, 86400.0)] == [
        "0s", "250ms", "1.5s", "1m", "90s", "2h", "1d",
    ]  # fmt: skip
    assert [shown_size(one) for one in (0, 1000, 2048, 3 << 20)] == ["0", "1000", "2KiB", "3MiB"]
