"""What threads share: a budget of bytes, for which they wait, and an allowance of pixels, which is used up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from camserve.errors import TooLarge


class Budget:
    """At most `total` bytes are held at once; a larger wish is held alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, wish: int) -> Iterator[None]:
        """Wait until `wish` bytes are free and hold them inside the block."""
        held = min(wish, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()


class Allowance:
    """The pixels that all pictures of one request may have together."""

    def __init__(self, pixels: int) -> None:
        self._all = pixels
        self._left = pixels
        self._lock = threading.Lock()

    def take(self, pixels: int) -> None:
        """Use up so many.

        Raises:
            TooLarge: not so many are left.
        """
        with self._lock:
            if pixels > self._left:
                raise TooLarge(f"Expected at most {self._all} pixels in all pictures of a request; send fewer.")
            self._left -= pixels
