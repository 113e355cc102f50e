"""The files that prometheus_client counts in, with room on the disk before anything is written to them.

It writes to memory that stands for a file. Where the disk is full such a write ends the process with SIGBUS, and there
is nothing to catch; asking for the room first gives an OSError instead.

Importing this imports prometheus_client, which looks for its folder just then.
"""

from __future__ import annotations

import os

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

_FIRST = 1 << 16
"""Bytes that prometheus_client gives a new file."""

_OVERHEAD = 40
"""Bytes of an entry besides its key, at most."""


class Counts(MmapedDict):
    """One worker's numbers of one kind."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            with open(filename, "ab") as file:
                os.posix_fallocate(file.fileno(), 0, max(_FIRST, os.fstat(file.fileno()).st_size))
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        """A new entry; prometheus_client doubles the file until it fits."""
        needed = self._used + len(key.encode()) + _OVERHEAD
        if needed > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, 2 * needed)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def use() -> None:
    """From now on every metric of this process is counted in such files."""
    values.MmapedDict = Counts  # type: ignore[attr-defined]
