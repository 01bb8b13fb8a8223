"""A few rounds of the fuzz, the same ones each time; ``make fuzz`` goes on for as long as you like."""

from __future__ import annotations

import pytest
from fuzz import Fuzz


@pytest.mark.parametrize("seed", range(20))
def test_no_bytes_harm_the_server_or_another_peer(seed: int) -> None:
    Fuzz(seed).run()
