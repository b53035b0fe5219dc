"""Memory of a server that stays up: what the C library and oneDNN would keep for ever is bounded or given back.

Measured with `python -m demos.visitors --rounds 0 --requests 1000`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress


def few_arenas() -> None:
    """Two memory arenas for all threads, where glibc would open sixteen that never shrink."""
    _glibc("mallopt", -8, 2)  # M_ARENA_MAX of malloc.h


def few_kernels() -> None:
    """oneDNN keeps the kernels of the last few shapes of pictures, where it would keep 1024 kernels. To be called
    before torch multiplies; a shape that comes back costs milliseconds.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def give_back() -> None:
    """Freed pages go back to the system, which glibc does only where they lie at an arena's end."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            getattr(ctypes.CDLL(None), function)(*arguments)
