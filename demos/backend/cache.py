"""What visitors' questions left in memory, bounded: in number and bytes for each of them, in bytes for all together.

    cache = VisitorCache(most=12, of_one=500_000_000, of_all=2_000_000_000)
    cache.keep("visitor", key, seen)        # anything with num_bytes
    cache.get("visitor", key)               # the same, or None
    cache.forget("visitor")

Of one visitor the least recently used goes first, of several everything of the one who has asked for nothing longest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from cachetools import LRUCache


class VisitorCache:
    """most: things of one visitor; of_one, of_all: bytes. What is larger than that alone is not kept. Thread-safe."""

    def __init__(self, most: int, of_one: int, of_all: int):
        self.most, self.of_one, self.of_all = most, min(of_one, of_all), of_all
        self._visitors: LRUCache = LRUCache(of_all, lambda own: own.currsize)  # visitor -> LRUCache of key -> thing
        self._lock = threading.RLock()

    def get(self, visitor: str, key: Hashable):
        """What was kept under a key, or None; counts as a use."""
        with self._lock:
            own = self._visitors.get(visitor)
            return None if own is None else own.get(key)

    def keep(self, visitor: str, key: Hashable, thing) -> None:
        """Keep a thing, or learn its size anew where it has grown. Raises nothing: what is too large is left out."""
        with self._lock:
            own = self._visitors.pop(visitor, None) or LRUCache(self.of_one, lambda entry: entry.num_bytes)
            own.pop(key, None)
            if thing.num_bytes <= self.of_one:
                own[key] = thing
            while len(own) > self.most:
                own.popitem()
            if own:
                self._visitors[visitor] = own

    def forget(self, visitor: str) -> None:
        """Let go of all that is a visitor's."""
        with self._lock:
            self._visitors.pop(visitor, None)

    def drop(self, which: Callable[[Hashable], bool]) -> None:
        """Let go of what is kept under such keys, of all visitors."""
        with self._lock:
            for visitor, own in list(self._visitors.items()):
                for key in [key for key in own if which(key)]:
                    del own[key]
                if own:
                    self._visitors[visitor] = own  # its size anew
                else:
                    del self._visitors[visitor]

    def keys(self) -> list[tuple[str, Hashable]]:
        """(visitor, key) of everything there."""
        with self._lock:
            return [(visitor, key) for visitor, own in self._visitors.items() for key in own]
