"""The policy of a function: what the job server does about its retries, time limits, limits, results and order.

A policy is read from ``key=value`` words and never changes after that: to change one is to make another. A function
without a policy behaves as Gearman always did. The rules that read it: ``submission`` (queue, results), ``gating``
(concurrency, rate, pause), ``assignment`` (timeout, weight, ageing), ``attempts`` (retries, dead letters, expires),
``watching`` (webhook).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from geartrain.native import i64, u8
from geartrain.units import FORMS, SIZE_FORMS, read_seconds, read_size, shown_seconds, shown_size

# Why an attempt did not succeed; the first four may be tried again, as retry_on says.
FAIL: Final = 0
EXCEPTION: Final = 1
TIMEOUT: Final = 2
LOST: Final = 3
RETRY: Final = 4  # the worker asked for another attempt
REJECT: Final = 5  # the worker wants none
EXPIRED: Final = 6
DROPPED: Final = 7  # its queue was full, and it had waited longest
REASONS: Final = ("fail", "exception", "timeout", "lost", "retry", "reject", "expired", "dropped")


def reason_name(reason: i64) -> str:
    """A reason as it is shown; what a newer job server has stored may be one that is not known here."""
    return REASONS[reason] if 0 <= reason < len(REASONS) else "unknown"


CONSTANT: Final = 0
LINEAR: Final = 1
EXPONENTIAL: Final = 2
BACKOFFS: Final = ("constant", "linear", "exponential")
WHEN_FULL: Final = ("refuse", "drop-oldest")

_RATE_UNITS: Final = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "hour": 3600.0}
LONGEST_URL: Final = 1000
_LONGEST: Final = 3650 * 86400.0  # seconds that any time may have
_GOLDEN: Final = 0.6180339887498949  # multiples of it, modulo 1, lie evenly

KEYS: Final[dict[str, tuple[str, str]]] = {
    "attempts": ("1 to 1000", "how often in all a job is tried"),
    "retry_on": ("fail,exception,timeout,lost", "what is tried again (default: all four)"),
    "backoff": ("constant, linear or exponential", "how the pause before another attempt grows (default: exponential)"),
    "delay": ("time", "the first pause (default: 1s)"),
    "max_delay": ("time", "the longest pause (default: 1h)"),
    "jitter": ("0 to 1", "share of each pause that differs from job to job (default: 0.1)"),
    "timeout": ("time", "how long an attempt may run where the worker has set no limit of its own"),
    "expires": ("time", "a job that has not begun by then goes to the dead letters"),
    "dead": ("time", "how long dead letters are kept, 0 for not at all (default: 7d, with attempts, expires or "
             "when_full=drop-oldest)"),
    "dead_count": ("1 to 1000000000", "how many dead letters are kept, the latest (default: 10000)"),
    "concurrency": ("1 to 1000000", "how many run at once over all workers"),
    "key_concurrency": ("1 to 1000000", "the same for each key, the part of the unique before the separator"),
    "key_separator": ("1 to 8 characters", "what ends the key in a unique (default: a colon)"),
    "rate": ("such as 10/s, 100/min or 5/h", "how many start in that time"),
    "burst": ("1 to 1000000", "how many of them may start at once (default: 1)"),
    "key_rate": ("such as 10/s, 100/min or 5/h", "the same for each key"),
    "key_burst": ("1 to 1000000", "how many of a key may start at once (default: 1)"),
    "queue": ("1 to 4294967296", "how many jobs there may be, waiting and running"),
    "when_full": ("refuse or drop-oldest", "what a submission to a full queue does (default: refuse)"),
    "weight": ("1 to 1000", "how many jobs a worker takes in its turn among functions of equal priority (default: 1)"),
    "ageing": ("time", "a low job that has waited so long counts as a normal one"),
    "results": ("time", "how long a result is kept, and answers submissions with the unique that its job had"),
    "result_size": ("size", "the largest result that is kept (default: 1MiB)"),
    "stale": ("time", "for so long after that an old result is given while a fresh one is made"),
    "webhook": ("http or https URL", "who is told of the end of each job; needs the job server's HTTP"),
}  # fmt: skip
"""Each key of a policy: what may stand there, and what it means."""


@final
class Rate:
    """So many starts in so many seconds."""

    def __init__(self, count: float, seconds: float, text: str) -> None:
        self.per_second: float = count / seconds
        self.text: str = text


@final
class Policy:
    """One policy; times in seconds, sizes in bytes, 0: not set. ``given`` has the words that it was made from."""

    def __init__(self, given: dict[str, str]) -> None:
        self.given: dict[str, str] = given
        self.attempts: i64 = _count(given, "attempts", 0, 1000)
        self.retry_on: i64 = _reasons(given)  # a bit for each reason
        self.backoff: u8 = u8(_choice(given, "backoff", BACKOFFS, "exponential"))
        self.delay: float = _seconds(given, "delay", 1.0)
        self.max_delay: float = _seconds(given, "max_delay", 3600.0)
        self.jitter: float = _share(given, "jitter", 0.1)
        self.timeout: float = _seconds(given, "timeout", 0.0)
        self.expires: float = _seconds(given, "expires", 0.0)
        self.drops_oldest: bool = _choice(given, "when_full", WHEN_FULL, "refuse") == 1
        buries = self.attempts > 0 or self.expires > 0 or self.drops_oldest
        self.dead: float = _seconds(given, "dead", 7 * 86400.0 if buries else 0.0)
        self.dead_count: i64 = _count(given, "dead_count", 10_000, 10**9)
        self.concurrency: i64 = _count(given, "concurrency", 0, 10**6)
        self.key_concurrency: i64 = _count(given, "key_concurrency", 0, 10**6)
        self.key_separator: bytes = _separator(given)
        self.rate: Rate | None = _rate(given, "rate")
        self.burst: i64 = _count(given, "burst", 1, 10**6)
        self.key_rate: Rate | None = _rate(given, "key_rate")
        self.key_burst: i64 = _count(given, "key_burst", 1, 10**6)
        self.queue: i64 = _count(given, "queue", 0, 2**32)
        self.weight: i64 = _count(given, "weight", 1, 1000)
        self.ageing: float = _seconds(given, "ageing", 0.0)
        self.keeps_attempts: bool = self.attempts > 0 or self.dead > 0
        self.results: float = _seconds(given, "results", 0.0)
        self.result_size: i64 = _size(given, "result_size", 1 << 20)
        self.stale: float = _seconds(given, "stale", 0.0)
        self.webhook: str = _url(given, "webhook")
        for key, needed in _NEEDS:
            if key in given and not any(one in given for one in needed):
                raise ValueError(f"{key}={given[key]}: it means something only beside {' or '.join(needed)}")

    @property
    def has_keys(self) -> bool:
        """Whether it limits each key by itself."""
        return self.key_concurrency > 0 or self.key_rate is not None

    @property
    def is_gated(self) -> bool:
        """Whether it decides which of the waiting jobs may start now."""
        return self.concurrency > 0 or self.rate is not None or self.has_keys or self.ageing > 0

    def retries(self, reason: i64) -> bool:
        """Whether an attempt that ended for this reason may be followed by another."""
        return self.retry_on & (1 << reason) != 0

    def pause(self, attempt: i64, number: i64) -> float:
        """Seconds before the next try, after so many attempts of the job with this number.

        The jitter is no chance: the pauses of many jobs are spread evenly, and a job's are the same after a restart.
        """
        pause = self.delay
        if self.backoff == LINEAR:
            pause *= float(attempt)
        elif self.backoff == EXPONENTIAL:
            pause *= 2.0 ** float(min(attempt - 1, 60))
        pause = min(pause, self.max_delay)
        spread = (float(number * 31 + attempt) * _GOLDEN) % 1.0
        return pause * (1.0 - self.jitter * spread)

    @property
    def text(self) -> str:
        """The words that it was made from, in the order of ``KEYS``."""
        return " ".join(f"{key}={self.given[key]}" for key in KEYS if key in self.given)

    def __repr__(self) -> str:
        return f"<Policy {self.text}>"


_NEEDS: Final = (
    ("burst", ("rate",)),
    ("key_burst", ("key_rate",)),
    ("key_separator", ("key_concurrency", "key_rate")),
    ("when_full", ("queue",)),
    ("result_size", ("results",)),
    ("stale", ("results",)),
)
"""Keys that mean something only beside others."""


def read_policy(words: Iterable[str], base: Policy | None = None) -> Policy | None:
    """The policy of ``key=value`` words, merged into ``base``; an empty value takes a key away. None: nothing is left.

    Raises ValueError, which names key, value and what is allowed.
    """
    given = {} if base is None else dict(base.given)
    for word in words:
        key, equals, value = word.partition("=")
        if key not in KEYS:
            raise ValueError(f"{word}: there is no key {key or 'without a name'}; the keys are {', '.join(KEYS)}")
        if not equals:
            raise ValueError(f"{word}: write {key}=VALUE, with {KEYS[key][0]}")
        if value:
            given[key] = value
        else:
            given.pop(key, None)
    return Policy(given) if given else None


def _wrong(given: dict[str, str], key: str, allowed: str) -> ValueError:
    return ValueError(f"{key}={given[key]}: {allowed}")


def _count(given: dict[str, str], key: str, default: int, most: int) -> int:
    value = given.get(key)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 20 and 1 <= int(value) <= most):
        raise _wrong(given, key, f"write a whole number, 1 to {most}")
    given[key] = str(int(value))
    return int(value)


def _seconds(given: dict[str, str], key: str, default: float) -> float:
    value = given.get(key)
    if value is None:
        return default
    try:
        seconds = read_seconds(value)
    except ValueError:
        raise _wrong(given, key, FORMS) from None
    if seconds > _LONGEST:
        raise _wrong(given, key, "the longest time is 3650d")
    if seconds == 0 and key not in ("dead", "delay", "max_delay"):
        raise _wrong(given, key, f"write a time above 0, or {key}= for none")
    given[key] = shown_seconds(seconds)
    return seconds


def _size(given: dict[str, str], key: str, default: int) -> int:
    value = given.get(key)
    if value is None:
        return default
    try:
        size = read_size(value)
    except ValueError:
        raise _wrong(given, key, SIZE_FORMS) from None
    if size > 2**32:
        raise _wrong(given, key, "the largest size is 4GiB")
    given[key] = shown_size(size)
    return size


def _share(given: dict[str, str], key: str, default: float) -> float:
    value = given.get(key)
    if value is None:
        return default
    digits = value.replace(".", "0", 1)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10) or value == "." or not 0 <= float(value) <= 1:
        raise _wrong(given, key, "write a number, 0 to 1")
    return float(value)


def _choice(given: dict[str, str], key: str, allowed: tuple[str, ...], default: str) -> int:
    value = given.get(key, default)
    if value not in allowed:
        raise _wrong(given, key, f"write {' or '.join(allowed)}")
    return allowed.index(value)


def _reasons(given: dict[str, str]) -> int:
    value = given.get("retry_on")
    allowed = REASONS[: LOST + 1]
    reasons = allowed if value is None else tuple(value.split(","))
    bits = 0
    for reason in reasons:
        if reason not in allowed:
            raise _wrong(given, "retry_on", f"write one or more of {', '.join(allowed)}, with commas between")
        bits |= 1 << allowed.index(reason)
    if value is not None:
        given["retry_on"] = ",".join([reason for reason in allowed if bits & 1 << allowed.index(reason)])
    return bits


def _separator(given: dict[str, str]) -> bytes:
    value = given.get("key_separator")
    if value is None:
        return b":"
    separator = value.encode("utf-8", "surrogateescape")
    if len(separator) > 8 or any(byte <= 32 or byte == 127 for byte in separator):
        raise _wrong(given, "key_separator", "write 1 to 8 characters that are no blanks")
    return separator


def _url(given: dict[str, str], key: str) -> str:
    value = given.get(key, "")
    host = value.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if value and (
        host in ("", value.partition("/")[0])
        or len(value) > LONGEST_URL
        or any(not "!" <= letter <= "~" for letter in value)
    ):
        raise _wrong(
            given, key, f"write a URL that begins with http:// or https:// and has {LONGEST_URL} letters at most"
        )
    return value


def _rate(given: dict[str, str], key: str) -> Rate | None:
    value = given.get(key)
    if value is None:
        return None
    count, _, unit = value.partition("/")
    seconds = _RATE_UNITS.get(unit, 0.0)
    if not (count.isascii() and count.isdigit() and len(count) < 8 and int(count) > 0 and seconds):
        raise _wrong(given, key, "write a whole number and a time, such as 10/s, 100/min or 5/h")
    return Rate(float(int(count)), seconds, value)
