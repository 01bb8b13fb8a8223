"""What stands behind the ``?`` of a store's URL."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from geartrain.redaction import shown_url
from geartrain.store.base import StoreError

UNREADABLE: Final = (
    "its URL can't be read: write scheme://user:password@host:port/database, and @ : / % in the password as"
    " %40 %3A %2F %25"
)
NAMESPACE: Final = re.compile("[a-z][a-z0-9_]{0,39}")


class Options:
    """The options of a URL; each method takes one out, and ``left`` has those that nobody took.

    What can't be used raises StoreError.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown_url(url)
        try:
            self.left = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        except ValueError:  # its text is not shown: it may quote a part of a password with unquoted signs
            raise StoreError(f"the store {self.shown}: {UNREADABLE}") from None

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


def check_port(url: str) -> None:
    """Raise StoreError if what stands in the place of the port is none: it may be a part of a password."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise StoreError(f"the store {shown_url(url)}: {UNREADABLE}") from None
