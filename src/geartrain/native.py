"""The compiler's words, for the files that are compiled: native integers, and marks on classes.

Interpreted, and without the compiler's own package, a native integer is an ordinary one and a mark means nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import i16, i32, i64, mypyc_attr, u8
else:
    try:
        from mypy_extensions import i16, i32, i64, mypyc_attr, u8
    except ImportError:
        i16 = i32 = i64 = u8 = int

        def mypyc_attr(**_):
            return lambda marked: marked


__all__ = ["i16", "i32", "i64", "mypyc_attr", "u8"]
