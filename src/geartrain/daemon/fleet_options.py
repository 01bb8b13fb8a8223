"""The options of a fleet: several job servers on one database, which take over from each other."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from geartrain.daemon.option import Flag

FLEET: Final = "Fleet"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


class FleetOptions(BaseSettings):
    """What ``geartrain serve`` can be told about its fleet."""

    fleet: Annotated[str, Flag(FLEET, metavar="NAME")] = Field(
        "",
        description="Be a member of the fleet of this name: all job servers with the same PostgreSQL, MariaDB or MySQL "
        "in --store, which take over each other's jobs. Handles begin with H:NAME on all of them.",
    )
    advertise: Annotated[str, Flag(FLEET, metavar="HOST:PORT")] = Field(
        "", description="Where the other members reach this job server, such as 10.0.0.7:4730."
    )

    @field_validator("fleet")
    @classmethod
    def _check_fleet(cls, value: str) -> str:
        if value and not _NAME.fullmatch(value):
            raise ValueError("a fleet's name has up to 40 letters, digits, dots, dashes and underscores")
        return value
