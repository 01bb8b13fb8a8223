"""The tree of errors: its drawing shows every one of them, and the package exports them."""

from __future__ import annotations

import re

import pytest

import geartrain
from geartrain import errors

TREE = {
    name: error
    for name, error in vars(errors).items()
    if isinstance(error, type) and issubclass(error, geartrain.GeartrainError)
}


def drawn() -> dict[str, str]:
    """Each error of the drawing, and the one it hangs on."""
    parents: list[tuple[int, str]] = []
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(    [│├└─ ]*)([A-Z]\w+Error)\b", line)
        if match is None:
            continue
        depth = len(match[1])
        while parents and parents[-1][0] >= depth:
            parents.pop()
        found[match[2]] = parents[-1][1] if parents else "Exception"
        parents.append((depth, match[2]))
    return found


def test_the_drawing_shows_every_error_where_it_hangs() -> None:
    assert drawn() == {name: error.__bases__[0].__name__ for name, error in TREE.items()}


@pytest.mark.parametrize("name", TREE)
def test_each_ends_in_error_has_a_remedy_and_is_at_hand(name: str) -> None:
    assert name.endswith("Error")
    assert TREE[name].__doc__
    assert getattr(geartrain, name) is TREE[name]
    assert name in geartrain.__all__
