"""``geartrain token``: a new token for the HTTP face, and what the configuration is to hold of it."""

from __future__ import annotations

import secrets

import click
from pydantic import ValidationError

from geartrain.daemon.http_options import Token
from geartrain.web.access import digest_of


@click.command("token")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    metavar="ROLE",
    help="What it may: read, submit, submit:PATTERN (of functions, such as submit:mail*), or operate. May be repeated.",
)
def command(name: str, roles: tuple[str, ...]) -> None:
    """Make a token for NAME, by which the audit log knows it.

    The token goes to whoever uses it, and is shown this once. The lines below it go into the file that `geartrain
    serve --config` reads; they hold only a digest.

    \b
    Example:
      geartrain token grafana --role read
    """
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise click.BadParameter(f"{name!r}: write letters, digits, - and _", param_hint="NAME")
    token = secrets.token_urlsafe(32)
    try:
        known = Token(digest=digest_of(token), roles=list(roles))
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise click.BadParameter(message, param_hint="--role") from None
    shown = ", ".join(f'"{role}"' for role in known.roles)
    click.echo(f"token: {token}")
    click.echo(f'\n[tokens.{name}]\ndigest = "{known.digest}"\nroles = [{shown}]')
