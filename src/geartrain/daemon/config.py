"""What the daemon can be told: one TOML file, the environment and flags, the strongest last.

Each field of ``Config`` is one option, in all three spellings: ``job_retries = 3`` in the file, the environment's
``GEARTRAIN_JOB_RETRIES``, and the flag ``--job-retries``. ``geartrain serve`` makes its flags and their help from it.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from annotated_types import Ge, Le
from pydantic import BeforeValidator, ByteSize, Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from geartrain.daemon.fleet_options import FLEET, FleetOptions
from geartrain.daemon.http_options import HTTP, HTTP_PORT, HttpOptions
from geartrain.daemon.listeners import FORMS, LOOPBACK, open_listeners, remove_unix_sockets
from geartrain.daemon.machine import memory_bytes, node_name, time_zone
from geartrain.daemon.option import Count, Flag, Positive, Seconds, read_words
from geartrain.daemon.schedule import read_keys, read_schedule
from geartrain.daemon.transport import Transport, has_epoll
from geartrain.errors import ConfigError
from geartrain.jobserver import Settings
from geartrain.jobserver.policy import read_policy
from geartrain.jobserver.records import LONGEST_NAME
from geartrain.redaction import learn, redacted
from geartrain.store.default import SYSTEM_FOLDER, default_url
from geartrain.wire.parser import DEFAULT_MAX_BODY, DEFAULT_MAX_LINE

Source = Literal["default", "file", "environment", "flag"]
Level = Literal["FATAL", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"]

_LARGEST = 2**32 - 2**16  # what is passed on grows by a handle and some names, and 32 bits must still tell its length
MAX_PREFIX = 48  # handles have at most 63 bytes (section 3.1): this leaves 14 digits, years of jobs


def _read_port(value: object) -> object:
    if isinstance(value, str) and not value.isdigit():
        with contextlib.suppress(OSError):
            return socket.getservbyname(value, "tcp")
    return value


def _read_mode(value: object) -> object:
    """The mode of a file as it is written everywhere: in octal digits."""
    if isinstance(value, str):
        digits = value.removeprefix("0o").lstrip("0") or "0"
        if len(digits) > 3 or set(digits) - set("01234567"):
            raise ValueError("write three octal digits, such as 660")
        return int(digits, 8)
    return value


def _read_level(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _read_retries(value: object) -> object:
    """gearmand keeps it in 32 bits without a sign: there -1 may also be written as the largest number."""
    return -1 if str(value) == str(2**32 - 1) else value


def _gearmand_default(default: int) -> BeforeValidator:
    """gearmand writes -1 where it means the default."""
    return BeforeValidator(lambda value: default if str(value) == "-1" else value)


_Mode = Annotated[int, BeforeValidator(_read_mode), Ge(0), Le(0o777)]
_Probing = Annotated[int, Ge(1), Le(32767)]

_LISTENING, _JOBS, _STORE, _LIMITS, _PROCESS, _LOG = "Listening", "Jobs", "Store", "Limits", "Process", "Log"
_DEFAULT_STORE = (
    f"queue.sqlite in $STATE_DIRECTORY, else in {SYSTEM_FOLDER} for root, ~/.local/state/geartrain for others"
)
THEMES = (_LISTENING, HTTP, _JOBS, _STORE, FLEET, _LIMITS, _PROCESS, _LOG)


_FOR_THE_RULES = (
    "store_timeout", "spill_above", "job_retries", "worker_wakeup", "wake_timeout", "exact_timeouts", "exceptions",
    "max_results", "max_line", "max_function", "max_unique", "max_functions", "max_abilities", "forget_after",
    "max_memory", "max_unsent", "max_half_sent", "packet_timeout",
)  # fmt: skip
"""Options that the job server's settings have by the same name and in the same form."""


class Given(NamedTuple):
    """Who has given an option its value, and where that stands; nowhere for a default."""

    source: Source
    where: str


class _Layer(NamedTuple):
    """Options that stand in one place; ``where`` says where one of them does."""

    source: Source
    where: Callable[[str], str]
    values: dict[str, Any]


_LAYERS: ContextVar[list[_Layer]] = ContextVar("layers")
"""What the configuration that was made last has found beside its flags, the strongest first."""


class Config(HttpOptions, FleetOptions):
    """The options of the daemon. Sizes are bytes (64MiB is understood), times are seconds (30s, 5m)."""

    model_config = SettingsConfigDict(
        env_prefix="GEARTRAIN_", env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )

    config: Annotated[Path | None, Flag(_PROCESS, metavar="FILE")] = Field(
        None, description='TOML file with options, such as max_memory = "4GiB".'
    )

    listen: Annotated[list[str], NoDecode, BeforeValidator(read_words), Flag(_LISTENING, "L", "ADDRESS")] = Field(
        [LOOPBACK], min_length=1, description=f"Where to listen: {FORMS.removeprefix('write ')}. May be repeated."
    )
    socket_mode: Annotated[_Mode, Flag(_LISTENING, metavar="MODE")] = Field(
        0o600, description="Who may connect to a Unix socket: the mode of its file, such as 660 for a group."
    )
    port: Annotated[int, BeforeValidator(_read_port), Ge(0), Le(65535), Flag(_LISTENING, "p", "PORT")] = Field(
        4730, description="The port, or its service's name, of each address that names none; 0 picks a free one."
    )
    backlog: Annotated[Positive, Flag(_LISTENING, "b", "N")] = Field(
        4096, description="Connections that may wait to be accepted; the system may allow less."
    )
    keepalive: Annotated[bool, Flag(_LISTENING)] = Field(
        True, description="Look for peers whose host died without a word, so that their jobs come back."
    )
    keepalive_idle: Annotated[_Probing, _gearmand_default(20), Flag(_LISTENING, metavar="SECONDS")] = Field(
        20, description="Silence before the first keepalive probe."
    )
    keepalive_interval: Annotated[_Probing, _gearmand_default(10), Flag(_LISTENING, metavar="SECONDS")] = Field(
        10, description="Time between keepalive probes."
    )
    keepalive_count: Annotated[int, Ge(1), Le(127), _gearmand_default(3), Flag(_LISTENING, metavar="N")] = Field(
        3, description="Unanswered probes that end a connection."
    )

    transport: Annotated[Transport, Flag(_LISTENING)] = Field(
        "auto",
        description="What carries the connections: epoll, the faster one, which must have been compiled; or asyncio, "
        "which is there everywhere. auto takes epoll where it is.",
    )

    job_retries: Annotated[int, BeforeValidator(_read_retries), Ge(-1), Le(2**31 - 1), Flag(_JOBS, "j", "N")] = Field(
        -1,
        description="How many workers a job may lose before it fails instead of being given to another; 0 and 1: it "
        "fails with the first one; -1: no limit.",
    )
    worker_wakeup: Annotated[Count, Flag(_JOBS, "w", "N")] = Field(
        1, description="Sleeping workers to wake for each job; 0 wakes all of them."
    )
    wake_timeout: Annotated[Seconds, Ge(0.01), Flag(_JOBS, metavar="SECONDS")] = Field(
        1.0, description="How soon a woken worker must ask for a job before another one is woken."
    )
    function_order: Annotated[Literal["priority", "listed"], Flag(_JOBS)] = Field(
        "priority",
        description="Which of a worker's functions is served first: the one with the job of highest priority, or, as "
        "gearmand 1.x does, the one that the worker listed first.",
    )
    exact_timeouts: Annotated[bool, Flag(_JOBS)] = Field(
        False,
        description="Take a worker's time limit below a second as it is. Otherwise it counts as a second, since many "
        "workers mean seconds where the protocol has milliseconds.",
    )
    exceptions: Annotated[bool, Flag(_JOBS)] = Field(
        False, description="Give every client the text of exceptions, as if it had asked for it."
    )
    job_handle_prefix: Annotated[str, Flag(_JOBS, metavar="TEXT", default="H:<name of this machine>")] = Field(
        "", description="What the names of jobs begin with."
    )
    time_zone: Annotated[str, Flag(_JOBS, metavar="NAME", default="this machine's")] = Field(
        "", description="Time zone of jobs scheduled by minute and hour, such as Europe/Berlin."
    )

    store: Annotated[str, Flag(_STORE, metavar="URL", default=_DEFAULT_STORE, is_secret=True)] = Field(
        default_factory=default_url,
        repr=False,
        min_length=1,
        description="Where background jobs are kept so that they survive this process: sqlite:////path/to/file, or "
        "postgresql://, mysql://, redis://, memcached:// and so on; memory: keeps them nowhere.",
    )
    store_timeout: Annotated[Seconds, Flag(_STORE, metavar="SECONDS")] = Field(
        5.0, description="How long a submission may wait for a store that is down before it is refused."
    )
    spill_above: Annotated[ByteSize, Flag(_STORE, metavar="SIZE")] = Field(
        ByteSize(64 * 1024), description="Stored workloads above this size leave memory until they are assigned."
    )

    max_packet: Annotated[ByteSize, Flag(_LIMITS, metavar="SIZE")] = Field(
        ByteSize(DEFAULT_MAX_BODY), ge=1024, le=_LARGEST, description="Largest packet a peer may send."
    )
    max_memory: Annotated[ByteSize, Flag(_LIMITS, metavar="SIZE", default="half of this machine's memory")] = Field(
        default_factory=lambda: ByteSize(memory_bytes() // 2),
        le=2**62,
        description="Memory for jobs, functions and abilities; beyond it peers get QUEUE_ERROR. 0 for no limit.",
    )
    max_results: Annotated[ByteSize, Flag(_LIMITS, metavar="SIZE")] = Field(
        ByteSize(256 * 1024**2), le=2**62, description="Results that are kept; the oldest make room. 0 for none."
    )
    max_half_sent: Annotated[ByteSize, Flag(_LIMITS, metavar="SIZE")] = Field(
        ByteSize(1024**3), le=2**62, description="Half-sent packets of all peers together; 0 for no limit."
    )
    max_unsent: Annotated[ByteSize, Flag(_LIMITS, metavar="SIZE")] = Field(
        ByteSize(64 * 1024**2),
        ge=64 * 1024,
        description="Unread bytes at which a peer is dropped; a single packet may be larger.",
    )
    max_unsent_total: Annotated[ByteSize, Flag(_LIMITS, metavar="SIZE")] = Field(
        ByteSize(1024**3),
        ge=1024**2,
        le=2**62,
        description="Unread bytes of all peers together at which the worst reader is dropped.",
    )
    max_connections: Annotated[Positive, Flag(_LIMITS, metavar="N")] = Field(
        100_000, description="Connections at once; fewer if the open files do not suffice."
    )
    reserved_connections: Annotated[Count, Flag(_LIMITS, metavar="N")] = Field(
        10, description="Of these connections, how many are kept for this machine, so that an operator gets in."
    )
    file_descriptors: Annotated[Count, Flag(_LIMITS, "f", "N", default="as many as this user may")] = Field(
        0, description="Files, and so connections, this process may open."
    )
    max_function: Annotated[int, Ge(1), Le(LONGEST_NAME), Flag(_LIMITS, metavar="BYTES")] = Field(
        512, description="Longest name of a function."
    )
    max_unique: Annotated[int, Ge(1), Le(LONGEST_NAME), Flag(_LIMITS, metavar="BYTES")] = Field(
        64, description="Longest unique key of a job."
    )
    max_functions: Annotated[Positive, Flag(_LIMITS, metavar="N")] = Field(100_000, description="Functions at once.")
    max_schedules: Annotated[Positive, Flag(_LIMITS, metavar="N")] = Field(
        10_000, description="Schedules at once, those of the configuration file included."
    )
    max_abilities: Annotated[Positive, Flag(_LIMITS, metavar="N")] = Field(
        20_000, description="Functions that one connection may register."
    )
    forget_after: Annotated[Seconds, Ge(1), Flag(_LIMITS, metavar="SECONDS")] = Field(
        600.0, description="A function without jobs, workers and limits is forgotten after so long."
    )
    max_line: Annotated[int, Ge(64), Le(2**24), Flag(_LIMITS, metavar="BYTES")] = Field(
        DEFAULT_MAX_LINE, description="Longest line of a text command."
    )
    packet_timeout: Annotated[Seconds, Ge(0.1), Flag(_LIMITS, metavar="SECONDS")] = Field(
        60.0, description="Time limit for a half-sent packet, plus a second for each 64 KiB of it."
    )

    daemon: Annotated[bool, Flag(_PROCESS, "d")] = Field(
        False, description="Detach from the terminal as soon as the server listens."
    )
    pid_file: Annotated[Path | None, Flag(_PROCESS, "P", "FILE")] = Field(
        None, description="File to write the process id to."
    )
    user: Annotated[str, Flag(_PROCESS, "u", "NAME")] = Field(
        "", description="Become this user once the server listens; root only."
    )
    drain_timeout: Annotated[Seconds, Flag(_PROCESS, metavar="SECONDS")] = Field(
        60.0, description="After SIGUSR1: time for running jobs to end."
    )
    stop_timeout: Annotated[Seconds, Flag(_PROCESS, metavar="SECONDS")] = Field(
        3.0, description="After SIGTERM or SIGINT: time for peers to take what they are owed."
    )

    verbose: Annotated[Level, BeforeValidator(_read_level), Flag(_LOG, metavar="LEVEL")] = Field(
        "INFO", description=f"Least level to log: {', '.join(get_args(Level))}."
    )
    log_file: Annotated[str, Flag(_LOG, "l", "FILE")] = Field(
        "stderr", min_length=1, description="Where to log: a file (SIGHUP reopens it), 'stderr' or 'none'."
    )
    log_format: Annotated[Literal["text", "json"], Flag(_LOG)] = Field(
        "text", description="Lines for people, or a JSON object a line."
    )
    syslog: Annotated[bool, Flag(_LOG)] = Field(False, description="Log to the system's log as well.")

    # Tables of the file, which have no flags.
    policies: dict[str, dict[str, str | int | float]] = Field(
        default_factory=dict, description="The policy of each function or pattern: [policies.resize] attempts = 5."
    )
    schedules: dict[str, dict[str, str | int | float]] = Field(
        default_factory=dict, description='Jobs made again and again: [schedules.nightly] cron = "30 2 * * *".'
    )

    _remarks: list[tuple[str, dict[str, object]]] = PrivateAttr(default_factory=list)
    _given: dict[str, Given] = PrivateAttr(default_factory=dict)
    _unix_sockets: list[str] = PrivateAttr(default_factory=list)  # the files of those that we have opened

    @field_validator("transport")
    @classmethod
    def _check_transport(cls, value: Transport) -> Transport:
        if value == "epoll" and not has_epoll():
            raise ValueError("needs Linux, and a C compiler when geartrain is installed")
        return value

    @field_validator("policies", "schedules", mode="before")
    @classmethod
    def _check_tables(cls, value: object) -> object:
        """No name that can't be one, and no truth value, which would be read as a number."""
        for name, keys in value.items() if isinstance(value, dict) else ():
            if not name or not str(name).isprintable():
                raise ValueError(f"{name!r} can't be a name: it is empty, or has characters that are not printed")
            for key, one in keys.items() if isinstance(keys, dict) else ():
                if isinstance(one, bool):
                    raise ValueError(f"{name}: {key} = {str(one).lower()}: write a text or a number")
        return value

    @field_validator("policies")
    @classmethod
    def _check_policies(cls, value: dict[str, dict[str, str | int | float]]) -> dict[str, dict[str, str | int | float]]:
        for name, keys in value.items():
            try:
                read_policy(f"{key}={keys[key]}" for key in keys)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return value

    @field_validator("schedules")
    @classmethod
    def _check_schedules(
        cls, value: dict[str, dict[str, str | int | float]]
    ) -> dict[str, dict[str, str | int | float]]:
        for name, keys in value.items():
            try:
                read_schedule(name.encode(), read_keys(keys), UTC)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return value

    @field_validator("job_handle_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if len(value.encode()) > MAX_PREFIX:
            raise ValueError(f"may have {MAX_PREFIX} bytes at most, so that handles stay within 63 bytes")
        if not value.isprintable():
            raise ValueError("must have no control characters")
        if value.endswith(":") or "//" in value:
            raise ValueError("must not end in a colon, since one follows, nor hold //, which ends a server's name")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before the environment before the file before gearmand's own variable."""
        environment = {name: value for name, value in env_settings().items() if not _is_kubernetes(value)}
        path = init_settings().get("config") or environment.get("config")
        layers = [
            _Layer("environment", lambda name: f"GEARTRAIN_{name.upper()}", environment),
            _Layer("file", lambda name: f"{_as_in_file(name)} in {path}", _read_file(path) if path else {}),
        ]
        gearmand_port = os.environ.get("GEARMAND_PORT", "")
        if gearmand_port and not _is_kubernetes(gearmand_port):
            layers.append(_Layer("environment", lambda _: "GEARMAND_PORT", {"port": gearmand_port}))
        _LAYERS.set(layers)
        return (init_settings, *(InitSettingsSource(settings_cls, init_kwargs=layer.values) for layer in layers))

    @classmethod
    def load(cls, flags: Mapping[str, Any], places: Mapping[str, str] | None = None) -> Config:
        """The configuration with these flags. Raises ConfigError with a line for each bad option.

        ``places`` says where those stand that were not given as flags.
        """
        for name, value in (*os.environ.items(), *flags.items()):
            if name in flags or name.upper().startswith("GEAR"):
                _learn(name, value)
        try:
            config = cls(**flags)
        except ValidationError as error:
            path = flags.get("config") or os.environ.get("GEARTRAIN_CONFIG")
            lines = [_explain(problem, flags, path, places or {}) for problem in error.errors()]
            raise ConfigError("\n".join(lines)) from None
        layers = [
            _Layer("file", lambda name: (places or {})[name], dict.fromkeys(places or {})),
            _Layer("flag", lambda name: f"--{name.replace('_', '-')}", dict(flags)),
            *_LAYERS.get(),
        ]
        for layer in reversed(layers):
            config._given |= {name: Given(layer.source, layer.where(name)) for name in layer.values}
        for name in ("GEARMAND_PORT", "GEARTRAIN_PORT"):
            if _is_kubernetes(os.environ.get(name)):
                why = "Kubernetes sets it for a service of that name"
                config.remark("variable_ignored", name=name, value=os.environ[name], reason=why)
        if config.job_retries == 0:
            config.remark(
                "option_has_changed",
                option="--job-retries 0",
                meaning="no retry: a job fails with the first worker it loses; -1 is no limit, and the default",
                since="gearmand after 2.0.0; before, 0 meant no limit",
            )
        if " " in config.job_handle_prefix:
            why = "tools that read handles as words, such as the text command `cancel job`, can't name these jobs"
            config.remark("handles_have_blanks", prefix=config.job_handle_prefix, reason=why)
        known = [f"GEARTRAIN_{field.upper()}" for field in cls.fields()]
        for name in os.environ:
            if name.startswith("GEARTRAIN_") and (meant := _alike(name, known)):
                config.remark("variable_unknown", name=name, meant=meant)
        return config

    def given(self, name: str) -> Given:
        """Who has given the option with this name the value that it has."""
        return self._given.get(name, Given("default", ""))

    @classmethod
    def fields(cls) -> list[str]:
        """The names of all options, without the tables of the file."""
        return [
            name for name, field in cls.model_fields.items() if any(isinstance(one, Flag) for one in field.metadata)
        ]

    def remark(self, event: str, **fields: object) -> None:
        """Note what the operator should read in the log once that is open."""
        self._remarks.append((event, fields))

    @property
    def remarks(self) -> Sequence[tuple[str, dict[str, object]]]:
        """What the operator should read in the log: events and their fields."""
        return self._remarks

    def rules(self) -> Settings:
        """The part of the options that the job server's rules follow. Raises ConfigError for an unknown time zone."""
        settings = Settings()
        settings.handle_prefix = (self.job_handle_prefix or f"H:{node_name()}").encode()[:MAX_PREFIX]
        settings.process_id = os.getpid()
        settings.verbosity = self.verbose.encode()
        settings.zone = time_zone(self.time_zone)
        settings.durable = not self.store.startswith("memory:")
        if self.fleet:
            settings.fleet = True
            settings.handle_prefix = f"H:{self.fleet}".encode()
        settings.listed_order = self.function_order == "listed"
        settings.max_body = self.max_packet
        for name, keys in self.policies.items():
            policy = read_policy(f"{key}={keys[key]}" for key in keys)
            if policy is not None:
                settings.policies[name.encode()] = policy
        for name in _FOR_THE_RULES:
            setattr(settings, name, getattr(self, name))
        return settings

    def sockets(self, passed: Sequence[socket.socket] = ()) -> list[Any]:
        """A bound socket for each listener. Raises ConfigError, with address and remedy, for one that can't be had.

        ``passed`` are those that the service manager has opened: they come first, and take the default's place.
        """
        written = [] if passed and "listen" not in self.model_fields_set else self.listen
        return self._open(written, self.port, passed)

    def http_sockets(self, passed: Sequence[socket.socket] = ()) -> list[Any]:
        """The same for the HTTP face."""
        try:
            return self._open(self.http, HTTP_PORT, passed)
        except ConfigError as error:
            raise ConfigError(
                str(error).replace("--listen and --port", "--http").replace("--listen", "--http")
            ) from None

    def _open(self, written: Sequence[str], port: int, passed: Sequence[socket.socket]) -> list[Any]:
        opened = open_listeners(written, port, self.socket_mode, passed)
        self._unix_sockets += [listener.getsockname() for listener in opened if listener.family == socket.AF_UNIX]
        return [*passed, *opened]

    def remove_unix_sockets(self) -> None:
        """Remove the files of our Unix sockets."""
        remove_unix_sockets(self._unix_sockets)


def flag_of(name: str) -> Flag:
    """How the option with this name is written as a flag; a table of the file has none that is used."""
    return next((item for item in Config.model_fields[name].metadata if isinstance(item, Flag)), Flag(_JOBS))


def _as_in_file(name: str) -> str:
    return name if name in Config.fields() else f"[{name}]"


def _is_kubernetes(value: object) -> bool:
    """Kubernetes tells a service's address in variables such as SERVICE_PORT=tcp://10.0.0.1:4730."""
    return isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://"))


def _read_file(path: str | Path) -> dict[str, Any]:
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"can't read the configuration file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        for string in re.split("['\"]", text):  # the error may quote a key
            learn(string)
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    options = {}
    for name, value in found.items():
        _learn(name, value)
        option = name.replace("-", "_")
        options[option if option in Config.model_fields else name] = value
    return options


def _learn(name: str, value: object) -> None:
    """Learn what may be a password in an option's value, of whatever type it is, or where its name should stand."""
    learn(name)
    if isinstance(value, Mapping):
        for inner, item in value.items():
            learn(str(inner))
            _learn(name, item)
    elif isinstance(value, list):
        for item in value:
            _learn(name, item)
    else:
        option = name.lower().removeprefix("geartrain_").replace("-", "_")
        learn(str(value), option in Config.model_fields and flag_of(option).is_secret)


def _alike(name: str, known: Sequence[str]) -> str:
    """The known name that this unknown one is a misspelling of, or nothing."""
    return "" if name in known else next(iter(difflib.get_close_matches(name, known, 1, 0.85)), "")


def _explain(problem: Any, flags: Mapping[str, Any], path: object, places: Mapping[str, str]) -> str:
    """One line for one bad value: where it was written, what it is, and what it should be; without passwords."""
    return redacted(_explanation(problem, flags, path, places))


def _explanation(problem: Any, flags: Mapping[str, Any], path: object, places: Mapping[str, str]) -> str:
    name = str(problem["loc"][0])
    if name in Config.model_fields and name not in Config.fields():
        table = ".".join(map(str, problem["loc"]))
        return f"[{table}] in {path}: {problem['msg'].removeprefix('Value error, ')}"
    variable = f"GEARTRAIN_{name.upper()}"
    if problem["type"] == "extra_forbidden":
        meant = _alike(name.replace("-", "_"), Config.fields())
        return f"{name} in {path} is no option" + (f": {meant} is" if meant else "; `geartrain serve --help` lists all")
    if name in flags:
        place = places.get(name, f"--{name.replace('_', '-')}")
    elif os.environ.get(variable):
        place = variable
    elif name == "port" and "GEARMAND_PORT" in os.environ:
        place = "GEARMAND_PORT"
    else:
        place = f"{name} in {path}"
    fault = problem["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if problem["type"] == "byte_size":
        fault = "write a size such as 4096, 64KiB or 4GiB"
    if flag_of(name).is_secret or "@" in str(problem["input"]):
        return f"{place}, whose value is not shown since it may hold a password: {fault}"
    return f"{place} is {problem['input']!r}: {fault}"
