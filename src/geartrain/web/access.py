"""Who asks over HTTP, and what they may do.

Without tokens everybody who reaches a loopback address may do everything, as over the Gearman port; a browser may not
do it for a page of somebody else. With tokens each request names one (``Authorization: Bearer``), or comes with the
cookie of a session that was opened with one. The configuration holds digests of tokens, never tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from geartrain.jobserver.rights import EVERYTHING, OPERATE, READ, SUBMIT
from geartrain.web.names import to_text
from geartrain.web.problems import Problem

ROLES: Final = ("read", "submit", "operate")
COOKIE: Final = "geartrain_session"
SESSION_SECONDS: Final = 12 * 3600.0
MAX_SESSIONS: Final = 1000
FAILURES: Final = 10  # wrong tokens of one host within ``FAILURE_SECONDS``, after which it has to wait
FAILURE_SECONDS: Final = 60.0
_FAILING_HOSTS: Final = 10_000  # that are remembered
_RIGHTS: Final = {"read": READ, "submit": SUBMIT, "operate": OPERATE}
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


class Identity:
    """Somebody who asks: a name, the host, and roles. ``submit:PATTERN`` holds for the functions that fit alone."""

    def __init__(self, name: str, host: str, roles: Sequence[str]) -> None:
        self.name = name
        self.host = host
        self.roles = frozenset(role.partition(":")[0] for role in roles)
        self.patterns = [role.partition(":")[2] or "*" for role in roles if role.partition(":")[0] == "submit"]
        self.rights = EVERYTHING if self.roles.issuperset(ROLES) else sum(_RIGHTS[role] for role in self.roles)

    def may(self, role: str, function: bytes | None = None) -> bool:
        """Whether this one has the role, and for a submission the function."""
        if role not in self.roles:
            return False
        if role != "submit" or function is None or "*" in self.patterns:
            return True
        return any(fnmatchcase(to_text(function), pattern) for pattern in self.patterns)

    def need(self, role: str, function: bytes | None = None) -> None:
        """Raises Problem if this one has not the role."""
        if self.may(role, function):
            return
        what = f"submit jobs of {to_text(function)}" if function is not None else role
        if not self.roles:
            raise Problem(
                401,
                "token-needed",
                "This needs a token: send it as Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="geartrain"'},
            )
        raise Problem(403, "not-allowed", f"{self.name} has no right to {what}", role=role)


@lru_cache(maxsize=1000)
def identity(name: str, host: str, roles: tuple[str, ...]) -> Identity:
    """The one of this name at this host, which is not made anew for each request."""
    return Identity(name, host, roles)


class Session:
    """A browser that has shown a token; ``csrf`` is what its pages send with each request that changes something."""

    def __init__(self, identity: Identity, until: float) -> None:
        self.identity = identity
        self.until = until
        self.csrf = secrets.token_urlsafe(24)


def digest_of(token: str) -> str:
    """What the configuration holds of a token: tokens are long and random, so that one round is enough."""
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'surrogateescape')).hexdigest()}"


class Access:
    """The tokens, the sessions, and which hosts a browser may mean."""

    def __init__(self, tokens: Mapping[str, tuple[str, Sequence[str]]], hosts: Sequence[str]) -> None:
        self._tokens = {digest: (name, tuple(roles)) for name, (digest, roles) in tokens.items()}
        self._named = frozenset(host.lower() for host in hosts)
        self._hosts = {host.lower() for host in (*_LOOPBACK_NAMES, *hosts)}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, and how many

    def check_host(self, host: str, local: str) -> None:
        """A name that leads here only because somebody's name server says so is not ours. Raises Problem."""
        name = _without_port(host)
        if name in self._hosts or name in (local, f"[{local}]"):
            return
        raise Problem(
            421,
            "unknown-host",
            f"This job server does not know itself as {name or 'nobody'}: name it with --http-host if it should",
        )

    def is_ours(self, origin: str, scheme: str, host: str) -> bool:
        """Whether a page of this origin is one of ours, as asked for by ``host``.

        By a name that the operator has given us they may have come through a proxy that ends TLS.
        """
        return origin == f"{scheme}://{host}" or (origin == f"https://{host}" and _without_port(host) in self._named)

    def identify(self, authorization: str, host: str) -> Identity:
        """Who has sent this header. Raises Problem for a wrong token, and for too many of them."""
        if not self._tokens:
            return identity("anyone", host, ROLES)
        if not authorization:
            return identity("nobody", host, ())
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Problem(401, "token-needed", f"Authorization: {scheme} is not understood: write Bearer TOKEN")
        return self._identify_token(token.strip(), host)

    def known(self, authorization: str, host: str) -> Identity | None:
        """The same, if it is a good one of a host that need not wait; a wrong one is not counted."""
        if not self._tokens:
            return identity("anyone", host, ROLES)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or self._must_wait(host):
            return None
        return self._identity_of(token.strip(), host)

    def _must_wait(self, host: str) -> float:
        """How long a host that has sent many wrong tokens has to wait, in seconds."""
        since, failures = self._failures.get(host, (0.0, 0))
        return max(since + FAILURE_SECONDS - time.monotonic(), 0.0) if failures >= FAILURES else 0.0

    def _identity_of(self, token: str, host: str) -> Identity | None:
        digest = digest_of(token)
        for known, (name, roles) in self._tokens.items():
            if hmac.compare_digest(known, digest):
                return identity(name, host, roles)
        return None

    def _identify_token(self, token: str, host: str) -> Identity:
        seconds = self._must_wait(host)
        if seconds:
            wait = str(int(seconds) + 1)
            detail = f"Too many wrong tokens from {host}: wait {wait} s"
            raise Problem(429, "too-many-failures", detail, headers={"Retry-After": wait})
        who = self._identity_of(token, host)
        if who is not None:
            return who
        since, failures = self._failures.get(host, (0.0, 0))
        now = time.monotonic()
        if now - since >= FAILURE_SECONDS:
            since, failures = now, 0
        self._failures[host] = (since, failures + 1)
        self._failures.move_to_end(host)
        if len(self._failures) > _FAILING_HOSTS:
            self._failures.popitem(last=False)
        raise Problem(401, "wrong-token", "No such token: it may have been replaced, or is cut off")

    # ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────

    def open_session(self, token: str, host: str) -> tuple[str, Session]:
        """Open a session with a token; the secret of its cookie, and it. Raises Problem as ``identify``."""
        who = self._identify_token(token, host) if self._tokens else identity("anyone", host, ROLES)
        secret = secrets.token_urlsafe(32)
        session = Session(who, time.monotonic() + SESSION_SECONDS)
        self._sessions[digest_of(secret)] = session
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return secret, session

    def session(self, secret: str) -> Session | None:
        """The session of a cookie, if it is one and has not ended."""
        key = digest_of(secret)
        session = self._sessions.get(key)
        if session is not None and session.until < time.monotonic():
            del self._sessions[key]
            return None
        return session

    def close_session(self, secret: str) -> None:
        """Forget a session."""
        self._sessions.pop(digest_of(secret), None)


def _without_port(host: str) -> str:
    name = host.lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name
