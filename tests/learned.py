"""What this process has learned to be a password, forgotten for a while: a test's outcome depends on no other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from geartrain import redaction


@contextmanager
def nothing_learned() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_secrets", set())
        patch.setattr(redaction, "_known", None)
        yield
