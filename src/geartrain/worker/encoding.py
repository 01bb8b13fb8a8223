"""How the arguments and the result of a typed function travel: JSON, msgpack, or pickle where it is asked for by name.

Whoever can submit a job that travels as pickle can run any code in the worker: use it only where every client is
trusted as the worker itself is.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from geartrain.worker.hints import plain

EncodingName = Literal["json", "msgpack", "pickle"]


@dataclass(frozen=True)
class Encoding:
    """A way to write values as bytes and read them again.

    ``write_part`` is for values that follow each other, ``read_last`` gives the last of such. Both that read raise
    ValueError for what is none of its bytes.
    """

    name: str
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    write_part: Callable[[Any], bytes]
    read_last: Callable[[bytes], Any]
    any_class: bool = False  # whether instances of any class can travel


def encoding(name: EncodingName) -> Encoding:
    """The encoding of that name; raises ValueError, or ImportError if it needs what is not installed."""
    if name == "json":
        return Encoding("JSON", _write_json, _read_json, _write_json_line, _read_last_line)
    if name == "msgpack":
        return _msgpack()
    if name == "pickle":
        return Encoding("pickle", pickle.dumps, _unpickle, pickle.dumps, _unpickle_last, any_class=True)
    raise ValueError(f"there is no encoding {name!r}: it is 'json', 'msgpack' or 'pickle'")


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)
_decoder = json.JSONDecoder()


def _write_json(value: Any) -> bytes:
    return _json.encode(value).encode()


def _read_json(data: bytes) -> Any:
    """As ``json.loads``, which looks first for other encodings than UTF-8 and for blanks around the value."""
    try:
        text = data.decode()
        value, end = _decoder.raw_decode(text)
        if end == len(text):
            return value
    except ValueError:
        pass
    return json.loads(data)


def _write_json_line(value: Any) -> bytes:
    return _write_json(value) + b"\n"


def _read_last_line(data: bytes) -> Any:
    return json.loads(data.rpartition(b"\n")[2])


def _msgpack() -> Encoding:
    try:
        import msgpack  # type: ignore[import-untyped, import-not-found, unused-ignore]  # it has no types
    except ImportError:
        raise ImportError("encoding='msgpack' needs the package msgpack: pip install msgpack") from None

    def write(value: Any) -> bytes:
        return bytes(msgpack.packb(value, default=plain))

    def read(data: bytes) -> Any:
        try:
            return msgpack.unpackb(data, strict_map_key=False)
        except (ValueError, msgpack.UnpackException) as error:
            raise ValueError(str(error) or type(error).__name__) from None

    def read_last(data: bytes) -> Any:
        unpacker = msgpack.Unpacker(io.BytesIO(data), strict_map_key=False)
        return list(unpacker)[-1]

    return Encoding("msgpack", write, read, write, read_last)


def _unpickle(data: bytes) -> Any:
    return _unpickled(io.BytesIO(data))


def _unpickle_last(data: bytes) -> Any:
    stream = io.BytesIO(data)
    value = None
    while stream.tell() < len(data):
        value = _unpickled(stream)
    return value


def _unpickled(stream: io.BytesIO) -> Any:
    try:
        return pickle.load(stream)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError) as error:
        raise ValueError(str(error)) from None
