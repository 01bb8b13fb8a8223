"""The options of gearmand 1.1 that ``geartrain serve`` takes beside its own, so that old start scripts go on working.

What has no meaning here is accepted and said so in the log. What promises something that is not given here in that
way, such as encryption or a certain database, is refused: to start without it would be worse than not to start.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from geartrain.errors import ConfigError
from geartrain.redaction import learn

_NO_STORE = "where jobs are kept is said by --store, and geartrain store import takes over what gearmand has kept"
_NO_TLS = "connections are not encrypted here: put a TLS proxy such as stunnel before the job server, or leave it out"

WITHOUT_MEANING: Mapping[str, str] = {
    "threads": "one thread serves all connections",
    "round_robin": "functions whose jobs have equal priority always take turns",
    "hashtable_buckets": "the tables grow by themselves",
    "coredump": "the system's own limit decides (ulimit -c)",
    "http_port": "there is no HTTP on this job server",
    "libsqlite3_db": _NO_STORE,
    "libsqlite3_table": _NO_STORE,
    "store_queue_on_shutdown": _NO_STORE,
    "mysql_host": _NO_STORE,
    "mysql_port": _NO_STORE,
    "mysql_user": _NO_STORE,
    "mysql_password": _NO_STORE,
    "mysql_db": _NO_STORE,
    "mysql_table": _NO_STORE,
    "libpq_conninfo": _NO_STORE,
    "libpq_table": _NO_STORE,
    "libmemcached_servers": _NO_STORE,
    "libmemcached_prefix": _NO_STORE,
    "redis_server": _NO_STORE,
    "redis_port": _NO_STORE,
    "redis_password": _NO_STORE,
    "redis_prefix": _NO_STORE,
    "libtokyocabinet_file": _NO_STORE,
    "libtokyocabinet_optimize": _NO_STORE,
}
"""Options that are accepted and why they do nothing."""

SECRETS = ("--store", "--mysql-password", "--libpq-conninfo", "--redis-password", "--webhook-secret")
"""Options, ours and gearmand's, whose values are passwords, or hold one."""

REFUSED: Mapping[str, str] = {
    "queue_type": "write --store URL instead, such as --store sqlite:////var/lib/geartrain/queue.sqlite, and take over"
    " what gearmand has kept by `geartrain store import`; or builtin for memory alone",
    "protocol": "there is no HTTP on this job server: leave it out",
    "ssl": _NO_TLS,
    "ssl_ca_file": _NO_TLS,
    "ssl_certificate": _NO_TLS,
    "ssl_key": _NO_TLS,
}
"""Options that are refused and why."""

FLAGS = ("round_robin", "coredump", "store_queue_on_shutdown", "ssl")
"""Those of the options that take no value."""

SHORT: Mapping[str, str] = {"threads": "t", "round_robin": "R", "queue_type": "q", "protocol": "r"}


_WORD = re.compile(
    r"""(?P<head>--[\w-]+=|-\w)?(?P<quote>["'])(?P<quoted>.*?)(?P=quote)(?!\S)|(?P<plain>\S+)""", re.ASCII
)
_OPEN_QUOTE = re.compile(r"""(--[\w-]+=|-\w)?["']""", re.ASCII)


def refuse(given: Mapping[str, object], places: Mapping[str, str]) -> None:
    """Raise ConfigError if an option was given that can't be honoured; ``places`` says where, if not as a flag."""
    for name, reason in REFUSED.items():
        value = given.get(name)
        if value and not (name == "queue_type" and str(value).lower() == "builtin"):
            place = places.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{place}: {reason}" if name in FLAGS else f"{place} is {value!r}: {reason}")


class OptionsFile:
    """What a file for gearmand's --config-file says: words such as --port=4730, with blanks or line ends between them.

    As gearmand does, it takes ``--port 4730`` and the start of a long name, and passes over words that are no option.
    Beyond that a word that begins with ``#``, or a line with ``;``, begins a comment, and a value may stand in quotes.
    Raises ConfigError, which names the line, for what is no option, lacks its value, or has one too many.
    """

    def __init__(self, path: str, known: Sequence[click.Parameter]) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        """By option, as click names it."""
        self.places: dict[str, str] = {}
        """Where each option is, in words."""
        self.ignored: dict[int, str] = {}
        """The lines with words that are no option, and the option that was meant, if one was."""
        self._spellings = {spelling: option for option in known for spelling in option.opts}
        self._negatives = {spelling: option for option in known for spelling in option.secondary_opts}
        self._read(learned(_words(path)))

    def _read(self, words: Iterator[tuple[int, str]]) -> None:
        options = True
        for line, word in words:
            if not options or len(word) < 2 or word[0] != "-":
                self._ignore(line, word)
            elif word == "--":
                options = False
            elif word[1] == "-":
                self._take_long(line, *word.partition("="), words)
            else:
                self._take_short(line, word[1:], words)

    def _ignore(self, line: int, word: str) -> None:
        name = f"--{word.partition('=')[0]}"
        self.ignored[line] = name if name in self._spellings else self.ignored.get(line, "")

    def _take_long(self, line: int, name: str, equals: str, value: str, words: Iterator[tuple[int, str]]) -> None:
        known = [*self._spellings, *self._negatives]
        meant = [name] if name in known else [spelling for spelling in known if spelling.startswith(name)]
        if len(meant) != 1:
            alike = meant or difflib.get_close_matches(name, known, 1, 0.75)
            remedy = f"write {' or '.join(alike)}" if alike else "`geartrain serve --help` lists all"
            raise self._error(line, f"{name} is no option: {remedy}")
        option = self._spellings.get(meant[0]) or self._negatives[meant[0]]
        if not getattr(option, "is_flag", False):
            self._set(line, option, value if equals else self._next(line, meant[0], words))
        elif equals:
            raise self._error(line, f"{meant[0]} takes no value: leave out what follows the equals sign")
        else:
            self._set(line, option, meant[0] in self._spellings)

    def _take_short(self, line: int, letters: str, words: Iterator[tuple[int, str]]) -> None:
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            option = self._spellings.get(name)
            if option is None:
                raise self._error(line, f"{name} is no option: `geartrain serve --help` lists all")
            if getattr(option, "is_flag", False):
                self._set(line, option, True)
            else:
                self._set(line, option, letters or self._next(line, name, words))
                return

    def _next(self, line: int, name: str, words: Iterator[tuple[int, str]]) -> str:
        _, value = next(words, (0, ""))
        if not value:
            raise self._error(line, f"{name} lacks its value: write it behind the name")
        return value

    def _set(self, line: int, option: click.Parameter, value: str | bool) -> None:
        assert option.name is not None
        self.values[option.name] = [*self.values.get(option.name, []), value] if option.multiple else value
        self.places[option.name] = f"{option.opts[0]} (line {line} of {self.path})"

    def _error(self, line: int, fault: str) -> ConfigError:
        return ConfigError(f"--config-file is {self.path!r}, line {line}: {fault}")


def learned(words: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The same words, having learned the values of secret options, and what follows them for want of quotes."""
    is_secret = False
    for number, word in words:
        if word.startswith("-"):
            option = next((name for name in SECRETS if word.startswith(name)), "")
            value = word.removeprefix(option)
            is_secret = bool(option) and not value.startswith("-")  # which would be another option
            learn(value.removeprefix("="), is_secret)
        else:
            learn(word, is_secret or "@" in word)
        yield number, word


def _words(path: str) -> Iterator[tuple[int, str]]:
    """The words of a file, each with the number of its line."""
    try:
        # As with arguments, bytes that are no UTF-8 stay what they are.
        text = Path(path).read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise ConfigError(
            f"--config-file is {path!r}, which can't be read ({error.strerror}): check the path"
        ) from None
    if "\0" in text:
        raise ConfigError(f"--config-file is {path!r}, which is no text, or not in UTF-8: check the path")
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith(";"):
            continue
        for found in _WORD.finditer(line):
            word = found["plain"]
            if word is None:
                yield number, (found["head"] or "") + found["quoted"]
            elif word.startswith("#"):
                break
            elif _OPEN_QUOTE.match(word):
                raise ConfigError(f"--config-file is {path!r}, line {number}: a quote is left open: close it")
            elif word != "\\":  # at the end of a line, in a shell's manner
                yield number, word
