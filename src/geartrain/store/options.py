"""What stands behind the ``?`` of a store's URL."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from geartrain.store.base import StoreError, shown_url

NAMESPACE: Final = re.compile("[a-z][a-z0-9_]{0,39}")


class Options:
    """The options of a URL; each method takes one out, and ``left`` has those that nobody took.

    What can't be used raises StoreError.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown_url(url)
        self.left = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))

    def namespace(self) -> str:
        """What begins the names of all that a store keeps: ``?namespace=``, by default ``geartrain``."""
        namespace = self.left.pop("namespace", "geartrain")
        if not NAMESPACE.fullmatch(namespace):
            raise StoreError(
                f"the store {self.shown}: namespace={namespace!r} can't be used: it must begin with a small letter and"
                " have at most 40 small letters, digits and underscores"
            )
        return namespace

    def yes(self, name: str) -> bool:
        """Whether the option says yes."""
        value = self.left.pop(name, "no").lower()
        if value not in ("yes", "no"):
            raise StoreError(f"the store {self.shown}: {name}={value!r} can't be used: say yes or no")
        return value == "yes"

    def number(self, name: str, default: int, lowest: int) -> int:
        """A whole number."""
        value = self.left.pop(name, str(default))
        if not value.isdecimal() or int(value) < lowest:
            raise StoreError(f"the store {self.shown}: {name}={value!r} can't be used: give a number from {lowest} on")
        return int(value)
