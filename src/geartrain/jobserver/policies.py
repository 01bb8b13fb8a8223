"""All policies, by the name or pattern that they were given; which one a function has."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Final, final

from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.policy import Policy

FILE: Final = "file"
COMMAND: Final = "command"
MAX_POLICIES: Final = 10_000
MAX_PATTERNS: Final = 1000  # each is looked at when a function becomes known


@final
class Policies:
    """Policies of the configuration file and of commands; of one name a command's counts.

    A name with ``*`` is a pattern. The most exact one decides: the function's own name, else of the patterns that
    match the one with the most characters that are no ``*``.
    """

    def __init__(self, of_file: dict[bytes, Policy]) -> None:
        self.of_file: dict[bytes, Policy] = of_file
        self.of_command: dict[bytes, Policy] = {}
        self.patterns: list[bytes] = sorted([name for name in of_file if b"*" in name], key=_rank)  # the best one last
        self.pattern_bytes: i64 = sum([len(pattern) for pattern in self.patterns])
        self.applying: bool = False  # functions are being given what patterns say now
        self.again: bool = False  # and patterns have changed since that began

    def named(self, name: bytes) -> Policy | None:
        """The policy of exactly this name or pattern."""
        return self.of_command.get(name) or self.of_file.get(name)

    def source(self, name: bytes) -> str:
        """Where the policy of this name was set."""
        return COMMAND if name in self.of_command else FILE

    def names(self) -> list[bytes]:
        """All names and patterns, sorted."""
        return sorted({**self.of_file, **self.of_command})

    def name_for(self, function: bytes) -> bytes | None:
        """The name or pattern of the policy that a function of this name has; None: it has none."""
        if not self.of_file and not self.of_command:
            return None
        if self.named(function) is not None:
            return function
        for pattern in reversed(self.patterns):
            if matches(pattern, function):
                return pattern
        return None

    def set(self, name: bytes, policy: Policy) -> None:
        """A command has set the policy of this name."""
        if b"*" in name and self.named(name) is None:
            insort(self.patterns, name, key=_rank)
            self.pattern_bytes += len(name)
        self.of_command[name] = policy

    def unset(self, name: bytes) -> None:
        """The policy that a command has set goes; one of the configuration file of the same name counts again."""
        del self.of_command[name]
        if b"*" in name and name not in self.of_file:
            self.patterns.remove(name)
            self.pattern_bytes -= len(name)

    def policy_for(self, function: bytes) -> Policy | None:
        """The policy that a function of this name has."""
        name = self.name_for(function)
        return None if name is None else self.named(name)


def _rank(pattern: bytes) -> tuple[int, bytes]:
    return len(pattern) - pattern.count(b"*"), pattern


def matches(pattern: bytes, name: bytes) -> bool:
    """Whether a name is what a pattern means, in which ``*`` stands for any bytes, also none."""
    first, *middle = pattern.split(b"*")
    if not middle:
        return pattern == name
    last = middle.pop()
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    at = len(first)
    end = len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
