"""Type hints as checks: whether a value that came from afar is what a function asks for.

JSON knows fewer types than Python, so a check also makes the value what the hint says: a list becomes the tuple, a text
the datetime, an object the dataclass. What is one already passes as it is, so the same check serves before sending.

    hint                                       travels as
    None, bool, int, float, str                themselves; an int will do for a float, a bool is no int
    list, tuple, set, frozenset, Sequence ...  a list
    dict, Mapping, TypedDict, dataclass        an object
    bytes                                      a text in base64 (in msgpack: itself)
    datetime, date, time                       a text as by isoformat()
    Decimal, UUID, Path                        a text as by str()
    Enum, Literal                              the value
    a pydantic model                           an object
    Union, Optional                            the first of them that fits
    Any, object, no hint                       anything
"""

from __future__ import annotations

import base64
import binascii
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import types
import typing
import uuid
from collections.abc import Callable, Iterable
from typing import Any

Check = Callable[[Any], Any]


class Mismatch(Exception):
    """A value is not what its hint says; ``where`` is the way to it from the value that was checked."""

    def __init__(self, expected: str, value: Any, where: str = "") -> None:
        super().__init__(expected, value, where)
        self.expected = expected
        self.value = value
        self.where = where

    def told(self, name: str) -> str:
        """A sentence about it, where the value checked is called ``name``."""
        return f"{name}{self.where} must be {self.expected}, not {self.value!r:.80} ({type(self.value).__name__})"


def check_for(hint: Any, *, strict: bool = True) -> Check:
    """The check for ``hint``.

    Raises TypeError for a type that can't travel, unless ``strict`` is false: then any class will do, and its
    instances are all that passes.
    """
    if hint in (Any, object, None.__class__, None) or isinstance(hint, (typing.TypeVar, str)):
        return _is_none if hint in (None.__class__, None) else _anything
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
        return check_for(arguments[0], strict=strict)
    if origin in (typing.Union, types.UnionType):
        return _any_of(hint, [check_for(argument, strict=strict) for argument in arguments])
    if origin is typing.Literal:
        return _literal(arguments)
    kind = origin or hint
    if kind in _SCALARS:
        return _SCALARS[kind]
    if not isinstance(kind, type):
        raise TypeError(f"the type {hint!r} can't be checked")
    if kind is tuple and arguments and arguments[-1] is not ...:
        return _fixed_tuple(hint, [check_for(argument, strict=strict) for argument in arguments if argument != ()])
    if typing.is_typeddict(kind):
        return _typed_dict(kind, strict)
    if kind in _LISTS:
        return _list(hint, _LISTS[kind], check_for(arguments[0] if arguments else Any, strict=strict))
    if kind in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        key, value = arguments or (Any, Any)
        return _dict(hint, _key(check_for(key, strict=strict)), check_for(value, strict=strict))
    if issubclass(kind, enum.Enum):
        return _convert(kind, kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, strict)
    if hasattr(kind, "model_validate"):  # a pydantic model
        return _convert(kind, kind.model_validate)
    for base, read in _TEXTS.items():
        if kind is base or (base is pathlib.Path and issubclass(kind, base)):
            return _convert(kind, read, str)
    if not strict:
        return _instance(kind)
    raise TypeError(f"the type {_name(hint)} can't travel as JSON; see geartrain.worker.hints for those that can")


def plain(value: Any) -> Any:
    """What stands for ``value`` in JSON and the like; raises TypeError for what can't travel."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset, collections.abc.Sequence)) and not isinstance(value, (bytes, bytearray)):
        return list(value)
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID, pathlib.PurePath)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    raise TypeError(f"{value!r:.80} of type {type(value).__name__} can't travel")


def _anything(value: Any) -> Any:
    return value


def _is_none(value: Any) -> None:
    if value is not None:
        raise Mismatch("None", value)


def _scalar(kind: type) -> Check:
    def check(value: Any) -> Any:
        if type(value) is kind or (isinstance(value, kind) and not isinstance(value, bool)):
            return value
        raise Mismatch(kind.__name__, value)

    return check


def _float(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise Mismatch("float", value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Mismatch("bytes (as a text in base64)", value) from None


_SCALARS: dict[Any, Check] = {
    **{kind: _scalar(kind) for kind in (bool, int, str)},
    float: _float,
    bytes: _bytes,
}
_LISTS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    **dict.fromkeys((list, collections.abc.Sequence, collections.abc.MutableSequence), list),
    **dict.fromkeys((collections.abc.Iterable, collections.abc.Collection), list),
    tuple: tuple,
    **dict.fromkeys((set, collections.abc.Set, collections.abc.MutableSet), set),
    frozenset: frozenset,
}
_TEXTS: dict[type, Callable[[str], Any]] = {
    datetime.datetime: datetime.datetime.fromisoformat,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
    decimal.Decimal: decimal.Decimal,
    uuid.UUID: uuid.UUID,
    pathlib.Path: pathlib.Path,
    pathlib.PurePath: pathlib.PurePath,
}


def _convert(kind: type, read: Callable[[Any], Any], written: type | tuple[type, ...] = object) -> Check:
    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if isinstance(value, written):
            try:
                return read(value)
            except (ValueError, ArithmeticError):
                pass
        raise Mismatch(kind.__name__, value)

    return check


def _instance(kind: type) -> Check:
    return _convert(kind, _anything, ())


def _literal(options: tuple[Any, ...]) -> Check:
    def check(value: Any) -> Any:
        for option in options:
            if value == option and type(value) is type(option):
                return option
        raise Mismatch(f"one of {', '.join(map(repr, options))}", value)

    return check


def _any_of(hint: Any, checks: list[Check]) -> Check:
    def check(value: Any) -> Any:
        for check in checks:
            try:
                return check(value)
            except Mismatch:
                continue
        raise Mismatch(_name(hint), value)

    return check


def _inner(check: Check, value: Any, where: str) -> Any:
    """Check a value within another."""
    try:
        return check(value)
    except Mismatch as mismatch:
        raise Mismatch(mismatch.expected, mismatch.value, where + mismatch.where) from None


def _list(hint: Any, make: Callable[[Iterable[Any]], Any], item: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise Mismatch(_name(hint), value)
        if item is _anything:
            return make(value)
        return make([_inner(item, one, f"[{index}]") for index, one in enumerate(value)])

    return check


def _fixed_tuple(hint: Any, items: list[Check]) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != len(items):
            raise Mismatch(_name(hint), value)
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(_inner(item, one, f"[{index}]") for index, (item, one) in pairs)

    return check


def _key(check: Check) -> Check:
    """Keys of a JSON object are texts, whatever they were."""

    def check_key(value: Any) -> Any:
        try:
            return check(value)
        except Mismatch:
            if check is _SCALARS[int] and isinstance(value, str) and value.lstrip("-").isdecimal():
                return int(value)
            raise

    return check_key


def _dict(hint: Any, key: Check, item: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, collections.abc.Mapping):
            raise Mismatch(_name(hint), value)
        return {_inner(key, name, " key"): _inner(item, one, f"[{name!r}]") for name, one in value.items()}

    return check


def _fields(kind: type, strict: bool) -> dict[str, Check]:
    return {name: check_for(hint, strict=strict) for name, hint in typing.get_type_hints(kind).items()}


def _typed_dict(kind: Any, strict: bool) -> Check:
    fields = functools.cache(lambda: _fields(kind, strict))  # when first used, since a type may hold itself

    @functools.cache
    def required() -> set[str]:
        # The class itself does not know, where its annotations are postponed.
        marks = {name: typing.get_origin(hint) for name, hint in typing.get_type_hints(kind, None, None, True).items()}
        return {
            name
            for name, mark in marks.items()
            if mark is typing.Required or (mark is not typing.NotRequired and name in kind.__required_keys__)
        }

    def check(value: Any) -> Any:
        if not isinstance(value, collections.abc.Mapping):
            raise Mismatch(kind.__name__, value)
        missing = required() - value.keys()
        unknown = value.keys() - fields().keys()
        if missing or unknown:
            what = f"without {', '.join(sorted(missing))}" if missing else f"with {', '.join(map(str, unknown))}"
            raise Mismatch(f"{kind.__name__}, which can't be {what}", value)
        return {name: _inner(fields()[name], one, f"[{name!r}]") for name, one in value.items()}

    return check


def _dataclass(kind: Any, strict: bool) -> Check:
    fields = functools.cache(lambda: _fields(kind, strict))

    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, collections.abc.Mapping) or value.keys() - fields().keys():
            raise Mismatch(kind.__name__, value)
        try:
            return kind(**{name: _inner(fields()[name], one, f".{name}") for name, one in value.items()})
        except (TypeError, ValueError) as error:  # a field is missing, or it refused
            raise Mismatch(f"{kind.__name__} ({error})", value) from None

    return check


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
