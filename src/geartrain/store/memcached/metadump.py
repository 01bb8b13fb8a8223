"""The keys of a memcached, as it dumps them for administrators.

The dump may miss what comes or goes meanwhile, so it is good for people to look at, and for reading what nobody writes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

BUSY_SECONDS: Final = 10  # that another dump may take
TIMEOUT: Final = 30  # seconds, for a line
_DUMP: Final = b"lru_crawler metadump all\r\n"


def keys(host: str, port: int) -> Iterator[bytes]:
    """All keys, in no order. Raises OSError, and ValueError if this memcached does not list them."""
    give_up_at = time.monotonic() + BUSY_SECONDS
    with socket.create_connection((host, port), timeout=TIMEOUT) as connection, connection.makefile("rb") as lines:
        connection.sendall(_DUMP)
        for line in lines:
            if line.startswith(b"key="):
                yield unquote_to_bytes(line[4:].partition(b" ")[0])
            elif line.startswith(b"BUSY") and time.monotonic() < give_up_at:
                time.sleep(0.2)
                connection.sendall(_DUMP)
            elif line.startswith(b"END"):
                return
            else:
                said = line.decode("utf-8", "replace").strip()
                raise ValueError(f"it does not list its keys ({said}): memcached 1.4.31 and newer can")
    raise ValueError("it hung up")
