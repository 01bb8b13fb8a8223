"""Lets docstrings keep their plain definition lists (a term, its meaning indented below) and still be shown as such."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DEFINITION = re.compile(r"^(``\S.*``)\n((?: {4}.*(?:\n|\Z))+)", re.MULTILINE)


class Definitions(griffe.Extension):
    """Rewrites each docstring for Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _DEFINITION.sub(_definition, obj.docstring.value)


def _definition(found: re.Match[str]) -> str:
    term, meaning = found.groups()
    return f"{term}\n:   {meaning[4:]}\n"
