r"""Conversations with a job server: a story a file, one packet a line.

A story opens with its title, and perhaps a sentence of why, up to the first empty line. Then, line by line:

    server --job-retries 1                       options the job server is started with
    client -> SUBMIT_JOB reverse "" hello        ``client`` (any name: a connection, opened when first named) sends
    worker <- JOB_ASSIGN H:t:1 reverse hello     ``worker`` gets exactly this next
    client <- ERROR INVALID_PACKET ...           "..." for arguments that do not matter
    worker <- nothing                            all it got was told already (asked of everyone at the end, too)
    admin -> text show jobs\n                    a line of text: the words joined by a space
    admin <- sorted text a\t0\t0\t1\n.\n         a listing whose lines come in any order
    admin <- text <fd> 127.0.0.1 - :\n.\n        <any-name> stands for a word, "..." for the rest of a line
    client -> ECHO_REQ a + text version\n        "+" joins messages into one write
    client -> bytes \0REQ \0\0                   any bytes: the words joined; Python's b'...' is understood as well
    worker closes                                it leaves
    client is closed                             the server left
    wait 1.5s                                    time passes
    clock 2027-03-01 11:59:30+01:00              what time it is, and where; such a story is for memory only

Words end at a blank; "in quotes" they may be empty or hold blanks; \n \t \r \0 \\ \" \xNN are bytes; "u"*65 repeats,
and what follows without a blank belongs to it; now+2 is the Unix time in two seconds. ``#`` starts a comment. The
jobs' handles are H:t:1, H:t:2, ...

The same file is played in memory, over sockets against our daemon, and, as referee, against gearmand. Where we
differ on purpose the line ends in ``# differs: what gearmand does``; the referee leaves such a line out and plays
the lines that begin with ``gearmand:`` instead. ``gearmand: stop (reason)`` ends the story for it; a story that
begins so tells of what gearmand does not know. The prefixes
``geartrain:``, ``sockets:`` and ``memory:`` likewise speak to some players only.
"""

from __future__ import annotations

import ast
import datetime
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

# Number of each packet type, and of its arguments (protocol reference, section 2).
PACKETS = {
    "CAN_DO": (1, 1), "CANT_DO": (2, 1), "RESET_ABILITIES": (3, 0), "PRE_SLEEP": (4, 0), "UNUSED": (5, 0),
    "NOOP": (6, 0), "SUBMIT_JOB": (7, 3), "JOB_CREATED": (8, 1), "GRAB_JOB": (9, 0), "NO_JOB": (10, 0),
    "JOB_ASSIGN": (11, 3), "WORK_STATUS": (12, 3), "WORK_COMPLETE": (13, 2), "WORK_FAIL": (14, 1),
    "GET_STATUS": (15, 1), "ECHO_REQ": (16, 1), "ECHO_RES": (17, 1), "SUBMIT_JOB_BG": (18, 3), "ERROR": (19, 2),
    "STATUS_RES": (20, 5), "SUBMIT_JOB_HIGH": (21, 3), "SET_CLIENT_ID": (22, 1), "CAN_DO_TIMEOUT": (23, 2),
    "ALL_YOURS": (24, 0), "WORK_EXCEPTION": (25, 2), "OPTION_REQ": (26, 1), "OPTION_RES": (27, 1),
    "WORK_DATA": (28, 2), "WORK_WARNING": (29, 2), "GRAB_JOB_UNIQ": (30, 0), "JOB_ASSIGN_UNIQ": (31, 4),
    "SUBMIT_JOB_HIGH_BG": (32, 3), "SUBMIT_JOB_LOW": (33, 3), "SUBMIT_JOB_LOW_BG": (34, 3),
    "SUBMIT_JOB_SCHED": (35, 8), "SUBMIT_JOB_EPOCH": (36, 4), "SUBMIT_REDUCE_JOB": (37, 5),
    "SUBMIT_REDUCE_JOB_BACKGROUND": (38, 5), "GRAB_JOB_ALL": (39, 0), "JOB_ASSIGN_ALL": (40, 5),
    "GET_STATUS_UNIQUE": (41, 1), "STATUS_RES_UNIQUE": (42, 6),
}  # fmt: skip
NAMES = {number: name for name, (number, _) in PACKETS.items()}
AUDIENCES = ("gearmand", "geartrain", "memory", "sockets")
HEADER = 12

_WORD = re.compile(
    r"""(?P<gap>\s*)(?:(?P<comment>\#.*)
      | (?P<python>b'(?:[^'\\]|\\.)*'|b"(?:[^"\\]|\\.)*")
      | "(?P<quoted>(?:[^"\\]|\\.)*)"(?:\*(?P<times>\d+))?
      | (?P<plain>\S+))""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"'}
_WILD = re.compile(rb"(<[a-z]+>|\.\.\.)")


@dataclass(frozen=True)
class Word:
    """A word of a line: its bytes, and whether it was in quotes (then it means only itself)."""

    data: bytes
    quoted: bool = False

    def at(self, now: int) -> bytes:
        moment = None if self.quoted else re.fullmatch(rb"now([+-]\d+)", self.data)
        return str(now + int(moment[1])).encode() if moment else self.data


@dataclass(frozen=True)
class Message:
    """One packet, text or run of bytes, as it is written in a story."""

    name: str
    words: tuple[Word, ...]
    sorted: bool = False

    def sent(self, now: int, magic: bytes = b"\0REQ") -> bytes:
        """The bytes of this message; ``now`` is the Unix time in whole seconds."""
        parts = [word.at(now) for word in self.words]
        if self.name == "text":
            return b" ".join(parts)
        if self.name == "bytes":
            return b"".join(parts)
        body = b"\0".join(parts)
        return struct.pack(">4sII", magic, PACKETS[self.name][0], len(body)) + body

    def found_in(self, received: bytes, now: int) -> int | None:
        """How many bytes at the start of ``received`` are this message: None if more are needed, 0 if it is another."""
        if self.name == "text":
            return self._lines_in(received)
        if self.words and self.words[-1] == Word(b"..."):
            return self._packet_in(received, [word.at(now) for word in self.words[:-1]])
        wanted = self.sent(now, b"\0RES")
        if received.startswith(wanted):
            return len(wanted)
        return None if wanted.startswith(received) else 0

    def _packet_in(self, received: bytes, first: list[bytes]) -> int | None:
        if len(received) < HEADER:
            return None
        magic, number, size = struct.unpack(">4sII", received[:HEADER])
        wanted, arguments = PACKETS[self.name]
        if (magic, number) != (b"\0RES", wanted):
            return 0
        if len(received) < HEADER + size:
            return None
        given = received[HEADER : HEADER + size].split(b"\0", arguments - 1)
        return HEADER + size if given[: len(first)] == first else 0

    def _lines_in(self, received: bytes) -> int | None:
        wanted = b" ".join(
            re.escape(word.data) if word.quoted else b"".join(map(_pattern, _WILD.split(word.data)))
            for word in self.words
        )
        patterns = wanted.replace(b"\\\n", b"\n").split(b"\n")[:-1]
        lines = received.split(b"\n")
        if len(lines) <= len(patterns):
            return None
        lines = lines[: len(patterns)]
        taken = sum(map(len, lines)) + len(lines)
        for place, pattern in enumerate(list(patterns)):
            candidates = lines if self.sorted and place < len(patterns) - 1 else lines[:1]
            match = next((line for line in candidates if re.fullmatch(pattern, line)), None)
            if match is None:
                return 0
            lines.remove(match)
        return taken


def _pattern(part: bytes) -> bytes:
    if part == b"...":
        return rb"[^\r\n]*"
    return rb"[^ \t\r\n]+" if _WILD.fullmatch(part) else re.escape(part)


@dataclass(frozen=True)
class Step:
    """One line: ``who`` does ``verb`` (->, <-, nothing, closes, is closed, server, wait, clock, stop)."""

    line: int
    text: str
    who: str
    verb: str
    messages: tuple[Message, ...] = ()
    value: str = ""
    audience: str = ""
    differs: str = ""

    def is_for(self, listeners: tuple[str, ...]) -> bool:
        return not self.audience or self.audience in listeners


@dataclass
class Conversation:
    """A story, read from ``path``."""

    path: Path
    title: str
    steps: list[Step] = field(default_factory=list)

    @property
    def differences(self) -> list[Step]:
        return [step for step in self.steps if step.differs]

    @property
    def is_ours_alone(self) -> bool:
        """Whether it tells of what gearmand does not know at all."""
        first = next((step for step in self.steps if step.verb != "server"), None)
        return first is not None and (first.verb, first.audience) == ("stop", "gearmand") and not self.differences

    @property
    def clock(self) -> datetime.datetime | None:
        """When the story begins, if it matters, in the server's time zone."""
        times = [datetime.datetime.fromisoformat(step.value) for step in self.steps if step.verb == "clock"]
        return times[0] if times else None

    def options(self, listeners: tuple[str, ...]) -> list[str]:
        """What the job server is started with."""
        steps = (step for step in self.steps if step.verb == "server" and step.is_for(listeners))
        return [option for step in steps for option in step.value.split()]


def read_conversation(path: Path) -> Conversation:
    """Read a story; ValueError names file, line and what is wrong with it."""
    lines = path.read_text().splitlines()
    head = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
    conversation = Conversation(path, lines[0].strip())
    for number, text in enumerate(lines[head:], head + 1):
        try:
            step = _read_step(number, text.strip())
        except ValueError as error:
            raise ValueError(f"{path.name}:{number}: {error}: {text}") from None
        if step is not None:
            conversation.steps.append(step)
    return conversation


def _read_step(number: int, text: str) -> Step | None:
    line, audience, differs = text, "", ""
    prefix, colon, rest = line.partition(":")
    if colon and prefix in AUDIENCES:
        line, audience = rest.strip(), prefix
    if mark := re.search(r"\s# differs: (.+)$", line):
        if audience:
            raise ValueError("a line that differs is for both of our players, so it has no prefix")
        line, audience, differs = line[: mark.start()], "geartrain", mark[1]
    if not line or line.startswith("#"):
        return None

    def step(who: str, verb: str, messages: tuple[Message, ...] = (), value: str = "") -> Step:
        return Step(number, text, who, verb, messages, value, audience, differs)

    if form := re.fullmatch(r"(server|clock|wait|stop)\s+(.*?)\s*(?:#.*)?", line):
        if form[1] == "wait":
            return step("", "wait", value=str(float(form[2].removesuffix("s"))))
        if form[1] == "clock" and datetime.datetime.fromisoformat(form[2]).tzinfo is None:
            raise ValueError("a clock shows its time zone as well")
        return step("", form[1], value=form[2])
    if form := re.fullmatch(r"(\w+) (closes|is closed)\s*(?:#.*)?", line):
        return step(form[1], form[2])
    if form := re.fullmatch(r"(\w+) <- nothing\s*(?:#.*)?", line):
        return step(form[1], "nothing")
    if form := re.fullmatch(r"(\w+) (->|<-) (.+)", line):
        return step(form[1], form[2], _read_messages(form[3]))
    raise ValueError("not a step of a conversation")


def _read_messages(text: str) -> tuple[Message, ...]:
    groups: list[list[Word]] = [[]]
    for match in _WORD.finditer(text):
        words = groups[-1]
        if match["comment"]:
            break
        if match["plain"] == "+":
            groups.append([])
        elif match["python"]:
            words += [] if words else [Word(b"bytes")]
            words.append(Word(ast.literal_eval(match["python"]), quoted=True))
        elif match["quoted"] is not None:
            words.append(Word(_unescape(match["quoted"]) * int(match["times"] or 1), quoted=True))
        elif words and not match["gap"]:
            words[-1] = Word(words[-1].data + _unescape(match["plain"]), quoted=True)
        else:
            words.append(Word(_unescape(match["plain"])))
    return tuple(_read_message(words) for words in groups)


def _read_message(words: list[Word]) -> Message:
    in_any_order = bool(words) and words[0] == Word(b"sorted")
    if in_any_order:
        words = words[1:]
    if not words:
        raise ValueError("a message is missing")
    name = words[0].data.decode()
    if name not in PACKETS and name not in ("text", "bytes"):
        raise ValueError(f"{name} is no packet type, nor text or bytes")
    return Message(name, tuple(words[1:]), in_any_order)


def _unescape(text: str) -> bytes:
    def byte(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 3:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise ValueError(f"unknown escape \\{code}")
        return _ESCAPES[code]

    return _ESCAPE.sub(byte, text).encode("latin-1")


def told(received: bytes) -> str:
    """``received`` in the words of a story, for the message of a failed test."""
    said = []
    while received:
        magic, number, size = struct.unpack(">4sII", received[:HEADER].ljust(HEADER, b"\xff"))
        if magic == b"\0RES" and number in NAMES and len(received) >= HEADER + size:
            body, received = received[HEADER : HEADER + size], received[HEADER + size :]
            arguments = body.split(b"\0", max(PACKETS[NAMES[number]][1] - 1, 0)) if size else []
            said.append(" ".join([NAMES[number], *map(_told_word, arguments)]))
        else:
            kind = "bytes" if received[:1] == b"\0" else "text"
            said.append(f"{kind} {_told_word(received)}")
            received = b""
    return "\n".join(said) or "nothing"


def _told_word(data: bytes) -> str:
    text = data if len(data) <= 200 else data[:200] + b" and more"
    word = repr(text)[2:-1].replace("\\x00", "\\0")
    return word if word and " " not in word else f'"{word}"'
