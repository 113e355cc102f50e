"""Classes in groups: so few that each can have a time series of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OTHER = "other"
MOST = 20


class Groups:
    """Which group a class belongs to."""

    def __init__(self, named: Mapping[str, Sequence[int]], labels: Sequence[str]) -> None:
        """`named` lists the classes of each group; where it is empty, as few as 20 classes are groups themselves."""
        if not named and len(labels) <= MOST:
            named = {label: (class_id,) for class_id, label in enumerate(labels)}
        self._of = {class_id: name for name, classes in named.items() for class_id in classes}

    def of(self, class_id: int) -> str:
        """The group's name; `other` for a class in none."""
        return self._of.get(class_id, OTHER)
