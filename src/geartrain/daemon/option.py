"""How one option of the daemon is written, and the kinds of values that many of them have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import BeforeValidator

from geartrain.units import read_seconds


@dataclass(frozen=True)
class Flag:
    """How an option is written on the command line and shown in its help."""

    theme: str
    short: str = ""  # a single letter
    metavar: str = ""
    default: str = ""  # where the default is not a fixed value
    is_secret: bool = False  # its value may hold a password, and is never shown


def _read_seconds(value: object) -> object:
    return read_seconds(value) if isinstance(value, str) else value


def read_words(value: object) -> object:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_read_seconds), Ge(0), Le(10 * 365 * 86400)]
Count = Annotated[int, Ge(0), Le(2**31 - 1)]
Positive = Annotated[int, Ge(1), Le(2**31 - 1)]
