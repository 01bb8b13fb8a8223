"""Job servers in memory, with their naive doubles beside them."""

from __future__ import annotations

import pytest
from world import World


@pytest.fixture
def world() -> World:
    """A World without options and without connections."""
    return World()
