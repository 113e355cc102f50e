"""Class ids and class names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from camserve.errors import InvalidOption, quoted

_MANY = 8


class Labels:
    """The class names of a model, in the order of its logits."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._ids: dict[str, list[int]] = defaultdict(list)
        for class_id, name in enumerate(self.names):
            self._ids[name.strip().casefold()].append(class_id)

    def __len__(self) -> int:
        return len(self.names)

    def find(self, selector: int | str) -> int:
        """The class id of an index or a name (letter case ignored).

        Raises:
            InvalidOption: no such class, or several of that name; says which ids there are.
        """
        if isinstance(selector, int):
            if not 0 <= selector < len(self):
                raise InvalidOption(f"Expected a class index from 0 to {len(self) - 1}, got {quoted(selector)}.")
            return selector
        ids = self._ids.get(selector.strip().casefold(), [])
        if len(ids) > 1:
            raise InvalidOption(f"Several classes are named {quoted(selector)}: choose one of the ids {ids[:_MANY]}.")
        if not ids:
            raise InvalidOption(
                f"No class is named {quoted(selector)}; a GET of the model lists its {len(self)} classes."
            )
        return ids[0]
