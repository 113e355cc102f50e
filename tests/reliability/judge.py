"""What holds for every answer, whatever was sent: the right status, valid JSON, a quiet log, untouched neighbours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hostile import listening
from service import validated

from camserve.pipeline import Pipeline
from camserve.records import Answer, Row
from pictures import encoded, quarters
from toynets import parsed

STATUSES = {200, 400, 413, 415, 422}
"""All that a client's mistake, or none, can lead to."""
_OWN = re.compile(rb'"(batch_size|queue|decode|preprocess|forward|explain|render|encode)":[\d.]+')
"""What may differ between two answers to the same row."""
_SIZES = range(1, 9)
"""Of batches; the last bit of a softmax depends on them."""


class Judge:
    """Answers hostile rows with an honest one among them, and looks at all that comes back."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.outcomes: Counter[str] = Counter()
        self._honest = Row(
            "honest",
            {"data": encoded(quarters(), "PNG"), "explain": b"true", "maps": b"overlay,grid,regions"},
            {},
        )
        with listening():
            self._own = {_comparable(pipeline.answer([self._honest] * size)[0]) for size in _SIZES}

    def __call__(self, rows: Sequence[Row]) -> list[Answer]:
        """The answers, each of which is as it should be; the honest row stands behind the first."""
        with listening():
            first, honest, *rest = self.pipeline.answer([rows[0], self._honest, *rows[1:]])
        assert _comparable(honest) in self._own, "a hostile row changed its neighbour's answer"
        answers = [first, *rest]
        for answer in answers:
            self.outcomes[outcome(answer)] += 1
        return answers


def outcome(answer: Answer) -> str:
    """Status, and the type of an error; fails where the answer is not what the contract says."""
    assert answer.status in STATUSES, answer.body[:500]
    if answer.mime != "application/json":
        assert answer.status == 200
        assert answer.mime.split(";")[0] in {"image/jpeg", "image/png", "image/webp", "text/html"}
        return "200"
    body = validated(parsed(answer))
    if "code" in body:
        assert body["code"] == answer.status
    return f"{answer.status} {body['type']}" if "type" in body else str(answer.status)


def _comparable(answer: Answer) -> tuple[int, bytes]:
    return answer.status, _OWN.sub(b"", answer.body)
