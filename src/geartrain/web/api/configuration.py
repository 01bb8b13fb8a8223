"""``/api/v1/configuration``: which options the job server runs with, and where each value comes from."""

from __future__ import annotations

from typing import Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ByteSize, Field

from geartrain.daemon.config import Config, flag_of
from geartrain.redaction import HIDDEN, redacted, shown_url
from geartrain.units import shown_size
from geartrain.web.api.asking import face_of, identity_of

router: Final = APIRouter(tags=["server"])


class Option(BaseModel):
    """One option, and its value."""

    key: str = Field(description="As the configuration file has it", examples=["job_retries"])
    value: str = Field(
        description="As it may be written; empty: none. What may be a password is `***`", examples=["64MiB"]
    )
    source: Literal["default", "file", "environment", "flag"] = Field(
        description="Who has given it; the flag is the strongest"
    )
    where: str = Field(
        description="Where it stands; empty: it is the default", examples=["job_retries in /etc/geartrain.toml"]
    )
    meaning: str
    theme: str = Field(description="Under which heading the help has it", examples=["Jobs"])


class Configuration(BaseModel):
    """All options."""

    options: list[Option]


@router.get(
    "/configuration",
    operation_id="show_configuration",
    summary="Show the options in force",
    response_model=Configuration,
)
async def show_configuration(request: Request) -> Configuration:
    """All options with their values and where these come from; of the tables of the file the names in them."""
    identity = identity_of(request)
    if not identity.may("operate"):
        identity.need("read")
    config = face_of(request).config
    return Configuration(options=[option_of(config, name) for name in Config.model_fields])


def option_of(config: Config, name: str) -> Option:
    """An option as it is told: without what may be a password."""
    given = config.given(name)
    return Option(
        key=name,
        value=redacted(_value(config, name)),
        source=given.source,
        where=redacted(given.where),
        meaning=Config.model_fields[name].description or "",
        theme=flag_of(name).theme if name in Config.fields() else "Tables",
    )


def _value(config: Config, name: str) -> str:
    value = getattr(config, name)
    flag = flag_of(name)
    if name == "store":
        return shown_url(value)
    if flag.is_secret:
        return HIDDEN if value else ""
    if isinstance(value, ByteSize):
        return shown_size(value)
    if not value and flag.default:
        return flag.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}s"
    if name == "socket_mode":
        return f"{value:o}"
    if isinstance(value, (list, dict)):
        return ", ".join(value)
    return "" if value is None else str(value)
