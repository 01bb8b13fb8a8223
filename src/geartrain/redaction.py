"""What may be a password is taken out of text before it leaves the process: as a message, in the log, in a traceback.

Two ways together. What is known is taken out wherever it stands: ``learn`` is told of each text that may hold a
password, as a store's URL does. What only looks like one is taken out where it stands: between ``://`` and ``@``, and
behind a name such as ``password=``. In doubt too much is hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

HIDDEN: Final = "***"

_SHORTEST: Final = 4  # letters: what is shorter is hidden where it stands, but not wherever else it occurs
_WORD: Final = 8  # letters: what is shorter is hidden as a word of its own alone
_PLACEHOLDERS: Final = ("user:password", "name:password", ":password")  # in what we tell people to write
_WITH_USERS: Final = ("postgresql", "mysql", "mariadb")  # where a name without a password is that of a user
_WITHOUT_USERS: Final = ("redis", "rediss", "valkey", "memcached")  # where it may as well be a password
_SCHEMES: Final = (*_WITH_USERS, *_WITHOUT_USERS, "sqlite", "memory")

_NAME: Final = r"(?:passw|passphrase|pass(?![a-z])|pwd|secret|token)[\w-]{0,20}"
_IS: Final = r"""(?:\s{0,3}=\s{0,3}|\\?["']\s{0,3}:\s{0,3})"""  # also in JSON, and in Python's repr of a dict
_QUOTED: Final = "|".join(
    rf"{sign}(?:\\+.|[^{sign}\\])*(?:{sign}|\\?$)|\\{sign}.*?(?:(?<!\\)\\{sign}|$)" for sign in ("'", '"')
)  # in a text that is quoted itself, the quotes and what escapes them may be escaped once more
_VALUE: Final = rf"""\\?['"]?\*\*\*(?!\w)\\?['"]?|{_QUOTED}|[^\s&]*[^\s&'"),;:.]|\S+"""
_ASSIGNED: Final = re.compile(f"({_NAME}{_IS})({_VALUE})", re.IGNORECASE | re.DOTALL)
_END: Final = r"""'")\]}>.,;:"""  # what may stand behind a URL in a sentence
_PORT: Final = rf"(?:port|\d{{1,5}})(?![\w-])|[/?#{_END}]|$"
_NO_PORT: Final = re.compile(rf"\A((?:\[[^\]]*\]|[^/?#:\[])*):(?!{_PORT}).*[^{_END}]", re.DOTALL)
_BEGIN: Final = re.compile(r"\s*(?:[\w-]+=)?[\w+.-]*")
_SEPARATORS: Final = re.compile(r"[/?#@:\[\]\s]+")  # where those who read a URL with unquoted signs cut it

_secrets: set[str] = set()
_known: re.Pattern[str] | None = None


def learn(written: str, is_secret: bool = False) -> None:
    """Take what may be a password in ``written`` out of every text from now on.

    ``is_secret``: where it is no URL, it may be a password as a whole.
    """
    global _known
    found = {form for secret in _secrets_in(written, is_secret) for form in _forms(secret)}
    if not found <= _secrets:
        _secrets.update(found)
        _known = None


def redacted(text: str) -> str:
    """The text with what may be passwords in it hidden."""
    global _known
    if _secrets:
        if _known is None:
            longest_first = sorted(_secrets, key=len, reverse=True)
            _known = re.compile("|".join(map(_pattern, longest_first)), re.IGNORECASE)
        text = _known.sub(HIDDEN, text)
    if "://" in text:
        text = re.sub(r"\S+", lambda run: _without_credentials(run[0]), text)
    return _ASSIGNED.sub(rf"\1{HIDDEN}", text)


def shown_url(url: str) -> str:
    """A store's URL as it may stand in a log: without its password and its options.

    In doubt it hides too much: signs that should have been quoted must not let a part of a password through.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        return f"{scheme}://{_hide_credentials(scheme, rest).partition('?')[0]}"
    begin, colon, _ = url.partition(":")
    return begin if begin in _SCHEMES or (colon and begin.isalnum()) else HIDDEN


def _hide_credentials(scheme: str, rest: str) -> str:
    """What stands behind the ``://`` of a URL, without its password, or its only name where that may be a password."""
    credentials, at, place = rest.rpartition("@")
    place = _NO_PORT.sub(rf"\1:{HIDDEN}", place)
    if not at:
        return place
    user, colon, _ = credentials.partition(":")
    if colon:
        return f"{user.partition('?')[0]}:{HIDDEN}@{place}"
    return f"{user.partition('?')[0] if _is_shown(scheme, user) else HIDDEN}@{place}"


def _without_credentials(run: str) -> str:
    scheme, separator, rest = run.partition("://")
    if not separator or rest.rpartition("@")[0] in _PLACEHOLDERS:
        return run
    return f"{scheme}://{_hide_credentials(scheme, rest)}"


def _is_shown(scheme: str, user: str) -> bool:
    """Whether what stands alone before the ``@`` is no password: a user's name, or the beginning of a path."""
    name = re.split(r"[^a-z0-9+]", scheme.lower())[-1].removeprefix("gearmand+").partition("+")[0]
    return name in _WITH_USERS or (user.startswith("/") and name not in _WITHOUT_USERS)


def _secrets_in(written: str, is_secret: bool) -> Iterator[str]:
    for match in _ASSIGNED.finditer(written):
        value = match[2].strip("\\'\"")
        yield from (value, unquote(value), unquote_plus(value))
        yield re.sub(r"\\(.)", r"\1", value)
    scheme, separator, rest = written.partition("://")
    if not separator:
        user, colon, rest = written.partition(":")
        if user == "unix":
            return  # the path of a socket
        if is_secret and user not in _SCHEMES:
            yield written
        if is_secret or (colon and "@" in rest and not re.search(r"\s", written)):
            yield from _pieces(rest.rpartition("@")[0] or rest, user)
        return
    if not _BEGIN.fullmatch(scheme):
        return  # a sentence, of which what is a secret can't be told
    credentials, at, place = rest.rpartition("@")
    if no_port := _NO_PORT.match(place):
        yield from _pieces(no_port[0][len(no_port[1]) + 1 :], no_port[1])
    user, colon, password = credentials.partition(":")
    if at and colon:
        if not user.startswith("/") or not scheme.endswith("sqlite"):
            yield from _pieces(password, user)
    elif at and not _is_shown(scheme, user):
        yield from _pieces(user)


def _pieces(password: str, user: str = "") -> Iterator[str]:
    """The password as it is written and as it is meant, and the pieces that a mistaken reader makes of it."""
    for piece in (password, *_SEPARATORS.split(password)):
        for meant in (piece, unquote(piece), unquote_plus(piece)):
            if meant not in (user, "password"):
                yield meant


def _forms(secret: str) -> set[str]:
    """All the ways in which a secret may be written in a text."""
    if len(secret.strip()) < _SHORTEST:
        return set()
    as_bytes = repr(secret.encode("utf-8", "replace"))[2:-1]
    quoted = {quote(secret, safe, errors="replace") for safe in ("", "/")}
    return {secret.strip(), repr(secret)[1:-1], as_bytes, json.dumps(secret)[1:-1], *quoted}


def _pattern(secret: str) -> str:
    pattern = re.escape(secret)
    return rf"(?<!\w){pattern}(?!\w)" if len(secret) < _WORD else pattern
