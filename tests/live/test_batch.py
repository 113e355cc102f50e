"""Concurrent requests share batches, and each is answered as if it were alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from service import CAT, COFFEE, grid

pytestmark = pytest.mark.live

KINDS = [
    ("", CAT),
    ("?explain=true&maps=grid", CAT),
    ("?explain=true&maps=grid&classes=top:3", COFFEE),
    ("?explain=true&maps=grid&method=layercam&layer=blocks.4.0", CAT),
    ("?explain=true&maps=grid&method=hirescam&layer=blocks.5.0&classes=281,282&contrast=runner_up", COFFEE),
    ("?explain=true&maps=grid,overlay&crop=100,50,200,200&polarity=negative", CAT),
    ("", b"no picture"),
    ("?explain=true", CAT[: len(CAT) // 2]),
    ("?nonsense=1", CAT),
    ("", COFFEE),
]


def test_64_mixed_requests_at_once_equal_the_same_requests_alone(service):
    alone = [service.ask(path, body) for path, body in KINDS]
    order = [n % len(KINDS) for n in range(64)]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda n: service.ask(*KINDS[n]), order))
    for n, reply in zip(order, together, strict=True):
        assert_same(reply, alone[n])
    sizes = [reply.json["batch_size"] for reply in together if reply.status == 200]
    assert max(sizes) > 1


def assert_same(reply, expected):
    assert reply.status == expected.status
    if expected.status != 200:
        assert reply.error == expected.error
        return
    ours, theirs = reply.json, expected.json
    assert {k: ours[k] for k in ("model", "image")} == {k: theirs[k] for k in ("model", "image")}
    probabilities = {p["class_id"]: p["probability"] for p in theirs["predictions"]}
    for prediction in ours["predictions"]:
        assert prediction["probability"] == pytest.approx(probabilities[prediction["class_id"]], abs=1e-4)
    assert ("explanation" in ours) == ("explanation" in theirs)
    if "explanation" in ours:
        assert_same_maps(ours["explanation"], theirs["explanation"])


def assert_same_maps(ours, theirs):
    assert ours["status"] == theirs["status"] == "ok"
    for one, other in zip(ours["classes"], theirs["classes"], strict=True):
        assert one["class_id"] == other["class_id"]
        scale = max(1.0, abs(grid(other)).max())
        np.testing.assert_allclose(grid(one), grid(other), atol=1e-3 * scale)
