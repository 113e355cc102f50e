"""One line on stderr that says which stage is at work and how far it is; nothing where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

_T = TypeVar("_T")


def progress(items: Sequence[_T], stage: str) -> Iterator[_T]:
    """The items one by one, while the line shows the stage's name; the line is wiped at the end."""
    yield from tqdm(items, desc=stage, leave=False, disable=None)


def batches(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    """Runs of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]
