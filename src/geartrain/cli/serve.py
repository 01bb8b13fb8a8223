"""``geartrain serve``: a job server whose flags are the fields of the daemon's ``Config``, and gearmand's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from geartrain import systemd
from geartrain.cli import gearmand_options
from geartrain.cli.themes import ThemedCommand, ThemedOption
from geartrain.daemon.config import THEMES, Config, flag_of
from geartrain.errors import ConfigError
from geartrain.version import VERSION

if TYPE_CHECKING:
    from geartrain.daemon.extension import Extension
    from geartrain.daemon.keeper import Keeper
    from geartrain.jobserver import JobServer

_GEARMAND = "For gearmand's sake"
_FROM_FILE = ParameterSource.DEFAULT_MAP

_DESCRIPTION = """Run a job server.

Each option may also be written in the TOML file that --config names (max_memory = "4GiB") and in the environment
(GEARTRAIN_MAX_MEMORY=4GiB); a flag is stronger than the environment, and the environment than the file.

Sizes may be written 64KiB or 4GiB, times 500ms, 30s or 5m.

\b
Examples:
  geartrain serve
  geartrain serve --listen '*' --port 4730
  geartrain serve --listen loopback --listen unix:/run/geartrain/socket
  geartrain serve --config /etc/geartrain.toml --log-format json
  geartrain serve --store postgresql://user:password@host/database
  geartrain serve --store postgresql://... --fleet mill --advertise 10.0.0.7:4730
  geartrain serve -d -L 0.0.0.0 -u gearman -P /run/gearmand.pid -l /var/log/gearmand.log

\b
Signals:
  SIGTERM, SIGINT  stop: send what is owed, close the connections, exit 0
  SIGUSR1          refuse new jobs, let running ones end (--drain-timeout), then stop
  SIGHUP           open the log file again; if the store was taken away, write
                   what is still known here to a new one
"""

_EPILOG = """gearmand's other options are understood too: --threads, --round-robin, --hashtable-buckets and others that
have no meaning here are accepted, and the log says so; --queue-type is said by --store here; --ssl and --protocol are
refused, since this job server does not do what they promise. GEARMAND_PORT is used where no port is given in another
way."""


class ServeCommand(ThemedCommand):
    """Takes gearmand's own file of options for what the arguments leave open."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for number, argument in gearmand_options.learned(enumerate(args)):
            name, equals, value = argument.partition("=")
            if name == "--config-file":
                path = value if equals else "".join(args[number + 1 : number + 2])
                ctx.obj = gearmand_options.OptionsFile(path, self.get_params(ctx))
                ctx.default_map = ctx.obj.values
        return super().parse_args(ctx, args)


def configuration(ctx: click.Context) -> Config:
    """What the command line, and the file of gearmand's that it names, make of all options."""
    given = {name: value for name, value in ctx.params.items() if value not in (None, ())}
    file: gearmand_options.OptionsFile | None = ctx.obj
    places: dict[str, str] = {}
    if file is not None:
        places = {name: file.places[name] for name in given if ctx.get_parameter_source(name) is _FROM_FILE}
    gearmand_options.refuse(given, places)
    if "queue_type" in given:
        given.setdefault("store", "memory:")  # builtin, or it would have been refused
    flags = {name: value for name, value in given.items() if name in Config.model_fields}
    if "listen" in flags:
        flags["listen"] = [part for text in flags["listen"] for part in text.split(",")]
    config = Config.load(flags, places)
    if file is not None:
        for line, meant in file.ignored.items():
            reason = f"write {meant} for an option" if meant else "gearmand passes over them too"
            config.remark("words_ignored", file=file.path, line=line, reason=reason)
    for name, reason in gearmand_options.WITHOUT_MEANING.items():
        if name in given:
            config.remark("option_without_meaning", option=f"--{name.replace('_', '-')}", reason=reason)
    return config


def _attach(config: Config) -> Sequence[Extension]:
    """What the daemon does not know and is told to have."""
    passed = systemd.sockets(systemd.HTTP)
    if not config.http and not passed:
        return ()
    try:
        from geartrain.web import open_web
    except ModuleNotFoundError as error:
        raise ConfigError(f"--http needs {error.name}: pip install 'geartrain[http]'") from None
    return (open_web(config, passed),)


@click.pass_context
def _serve(ctx: click.Context, /, check_args: bool, **_: object) -> None:
    from geartrain.daemon.process import serve

    config = configuration(ctx)
    if not check_args:
        serve(config, _attach, _open_fleet)


def _open_fleet(config: Config, server: JobServer) -> Keeper:
    """The keeper of a member of a fleet, with all imported that this needs."""
    from geartrain.fleet import open_fleet

    return open_fleet(config, server)


def _options() -> list[click.Parameter]:
    listed = sorted(Config.fields(), key=lambda name: THEMES.index(flag_of(name).theme))
    options: list[click.Parameter] = [_option(name, Config.model_fields[name]) for name in listed]
    check = "Check the options, and exit without serving."
    options.append(ThemedOption(["--check-args"], is_flag=True, theme="Process", help=check))
    words = "gearmand's own file of options: words such as --port=4730."
    options.append(ThemedOption(["--config-file"], metavar="FILE", theme=_GEARMAND, help=words))
    for name in (*gearmand_options.WITHOUT_MEANING, *gearmand_options.REFUSED):
        short = gearmand_options.SHORT.get(name)
        spellings = [f"--{name.replace('_', '-')}", *([f"-{short}"] if short else [])]
        is_flag = name in gearmand_options.FLAGS
        options.append(ThemedOption(spellings, is_flag=is_flag, default=None, hidden=True, theme=_GEARMAND))
    return options


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = flag_of(name)
    long = f"--{name.replace('_', '-')}"
    kind: dict[str, Any] = {"metavar": flag.metavar or None}
    if field.annotation is bool:
        kind = {"is_flag": True}
        if field.default:
            long = f"{long}/--no-{name.replace('_', '-')}"
    elif choices := choices_of(name):
        kind = {"metavar": f"[{'|'.join(choices)}]"}
    spellings = [long, *([f"-{flag.short}"] if flag.short else [])]
    default = default_text(name)
    text = (field.description or "") + (f"  [default: {default}]" if default else "")
    return ThemedOption(spellings, default=None, multiple=name == "listen", help=text, theme=flag.theme, **kind)


def choices_of(name: str) -> tuple[str, ...]:
    """The words that an option may have, where they stand for its value in the help; else none."""
    field = Config.model_fields[name]
    return get_args(field.annotation) if get_origin(field.annotation) is Literal and not flag_of(name).metavar else ()


def default_text(name: str) -> str:
    """The default of an option as people write it; empty: it has none."""
    field = Config.model_fields[name]
    default = flag_of(name).default or field.default
    if field.annotation is bool:
        return "on" if default else ""
    if isinstance(default, ByteSize):
        return default.human_readable(separator=" ").replace(".0", "")
    if isinstance(default, list):
        return ", ".join(default)
    if name == "socket_mode":
        return f"{default:o}"
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default is None else str(default)


def _say_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"geartrain {VERSION}")
        ctx.exit()


command = ServeCommand(
    "serve",
    callback=_serve,
    params=[
        *_options(),
        ThemedOption(
            ["-V", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_say_version,
            theme="Process",
            help="Say which geartrain this is, and exit.",
        ),
    ],
    help=_DESCRIPTION,
    epilog=_EPILOG,
)
