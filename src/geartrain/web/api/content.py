"""Bytes in JSON: text where they are UTF-8, else base64; large ones are written in parts, so that nobody waits."""

from __future__ import annotations

import asyncio
import base64
import codecs
import json
from collections.abc import AsyncIterator
from typing import Final

from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
_PART: Final = 192 * 1024  # bytes; a multiple of 3, as base64 has it


class Text(BaseModel):
    """Bytes that are UTF-8."""

    text: str


class Base64(BaseModel):
    """Bytes that are not."""

    base64: str


Content = Text | Base64


def content(data: bytes) -> Content:
    """Bytes for JSON."""
    try:
        return Text(text=data.decode())
    except UnicodeDecodeError:
        return Base64(base64=base64.b64encode(data).decode())


async def answer(model: BaseModel, name: str, data: bytes) -> Response:
    """A model as the answer, with the content of ``data`` as its member ``name``."""
    members = model.model_dump_json(exclude={name})
    return await _answer(f'{members[:-1]},"{name}":', data, "}")


async def content_alone(data: bytes) -> Response:
    """The content of ``data`` as the answer."""
    return await _answer("", data, "")


async def _answer(head: str, data: bytes, tail: str) -> Response:
    if len(data) <= _PART:
        return Response(f"{head}{content(data).model_dump_json()}{tail}", media_type=JSON)
    parts = _texts(data) if await _is_text(data) else _base64(data)
    return StreamingResponse(_written(head + "{", parts, '"}' + tail), media_type=JSON)


async def _written(head: str, parts: AsyncIterator[str], tail: str) -> AsyncIterator[str]:
    yield head
    async for part in parts:
        yield part
        await asyncio.sleep(0)
    yield tail


async def _is_text(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(data), _PART):
            decoder.decode(data[at : at + _PART])
            await asyncio.sleep(0)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


async def _texts(data: bytes) -> AsyncIterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    yield '"text":"'
    for at in range(0, len(data), _PART):
        yield json.dumps(decoder.decode(data[at : at + _PART]), ensure_ascii=False)[1:-1]


async def _base64(data: bytes) -> AsyncIterator[str]:
    yield '"base64":"'
    for at in range(0, len(data), _PART):
        yield base64.b64encode(data[at : at + _PART]).decode()
