"""The options of the HTTP face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from geartrain.daemon.option import Flag, Positive, Seconds, read_words

HTTP = "HTTP"
HTTP_PORT = 8080
_ROLES = ("read", "submit", "operate")


class Token(BaseModel):
    """Who may ask over HTTP: the digest of a token, and roles, of which ``submit:PATTERN`` is for some functions."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    roles: list[str] = Field(min_length=1)

    @field_validator("roles")
    @classmethod
    def _check_roles(cls, value: list[str]) -> list[str]:
        for role in value:
            name, colon, _ = role.partition(":")
            if name not in _ROLES or (colon and name != "submit"):
                raise ValueError(f"{role!r} is no role: write read, submit, submit:PATTERN or operate")
        return value


class HttpOptions(BaseSettings):
    """What ``geartrain serve`` can be told about HTTP."""

    http: Annotated[list[str], NoDecode, BeforeValidator(read_words), Flag(HTTP, metavar="ADDRESS")] = Field(
        [],
        description="Serve HTTP there, such as 127.0.0.1:8080, loopback or unix:/path: submissions, the JSON API, "
        "metrics. May be repeated.",
    )
    http_host: Annotated[list[str], NoDecode, BeforeValidator(read_words), Flag(HTTP, metavar="NAME")] = Field(
        [], description="A name, without its port, by which browsers and proxies know this server. May be repeated."
    )
    http_certificate: Annotated[Path | None, Flag(HTTP, metavar="FILE")] = Field(
        None, description="Certificate chain in PEM form: HTTP is then HTTPS."
    )
    http_key: Annotated[Path | None, Flag(HTTP, metavar="FILE")] = Field(
        None, description="The certificate's private key, if it is not in the same file."
    )
    http_open: Annotated[bool, Flag(HTTP)] = Field(
        False,
        description="Serve HTTP beyond this machine though there are no tokens, or tokens without a certificate. "
        "Whoever reaches it may then do everything, or may listen in.",
    )
    http_timeout: Annotated[Seconds, Flag(HTTP, metavar="SECONDS")] = Field(
        60.0, description="How long a request waits for its foreground job at most."
    )
    http_max_connections: Annotated[Positive, Flag(HTTP, metavar="N")] = Field(
        2000, description="HTTP connections at once."
    )
    http_audit: Annotated[Path | None, Flag(HTTP, metavar="FILE")] = Field(
        None, description="Append a line of JSON to this file for each action of an operator, and for each refused one."
    )
    metrics_functions: Annotated[Positive, Flag(HTTP, metavar="N")] = Field(
        1000, description="Functions that /metrics tells one by one; those with the least traffic are told together."
    )
    max_history: Annotated[ByteSize, Flag(HTTP, metavar="SIZE")] = Field(
        ByteSize(64 * 1024**2),
        ge=1024**2,
        le=2**62,
        description="Memory for what has happened over time; beyond it the functions with the fewest jobs are told as "
        "one.",
    )
    http_gearmand: Annotated[bool, Flag(HTTP)] = Field(
        False,
        description="Answer as gearmand's HTTP does: GET submits as well, a failed job is 200, names are taken as "
        "they stand.",
    )
    webhook_secret: Annotated[str, Flag(HTTP, metavar="TEXT", is_secret=True)] = Field(
        "", repr=False, description="What webhooks are signed with where their submission has named no secret."
    )
    webhook_private: Annotated[bool, Flag(HTTP)] = Field(
        False, description="Let webhooks call loopback and private addresses, and any port."
    )
    max_webhooks: Annotated[Positive, Flag(HTTP, metavar="N")] = Field(
        10_000, description="Webhooks that may wait to arrive; at most half of them for one host."
    )

    # A table of the file.
    tokens: dict[str, Token] = Field(
        default_factory=dict,
        description='Who may ask over HTTP, as `geartrain token` prints it: [tokens.grafana] digest = "sha256:..." '
        'roles = ["read"].',
    )
