"""An explanation leaves nothing behind in the network, and changes no prediction beside it by a single bit."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
import watermark
from watermark_network import BITS

import toynets
from camserve.archive import Recipe, opened
from camserve.cam.methods import METHODS
from camserve.clock import Clock
from camserve.errors import InvalidOption, InvalidRequest, MissingImage, Undecodable, UnsupportedFormat
from camserve.model import embedded
from camserve.pipeline import Pipeline
from camserve.records import Prepared, Row, Task, Verdict
from pictures import cat, coffee

BATCH = 8
WARM, PASSES = 10, 40
BYTES_AN_ANSWER, BLOCKS_AN_ANSWER = 500, 3
"""By so much memory may grow for each, before it counts as kept; a tenth to a third is usual, and falls with time."""

HELD = (InvalidOption, InvalidRequest, MissingImage, UnsupportedFormat, Undecodable, Task, Prepared, Verdict, Clock)
"""What is made for a request and gone with its answer."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
NUMBER = watermark.encoded(watermark.drawn(0xA5C3))
WHITE = watermark.encoded(watermark.WHITE)

FRAGILE = (
    toynets.SEEDED
    + '''

class Fragile(Seeded):
    """Fails for a picture that is white all over, but only with a graph: at the layer, or on the way back."""

    def forward(self, x):
        early = self.early(x)
        if early.requires_grad and (x > 0.99).flatten(1).all(1).any():
            if self.broken:
                raise RuntimeError("no graph for this picture")
            early.register_hook(self.fail)
        return self.head(self.features(early).mean((2, 3)))

    broken = True

    def fail(self, gradient):
        raise RuntimeError("no way back for this picture")


class FragileBackward(Fragile):
    broken = False
'''
)
"""Its explanations fail, its predictions do not."""


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> Iterator[dict[str, Pipeline]]:
    """A network each for numbers, for failures, for a full GPU, and the embedded one."""

    def toy(source: str, name: str, labels: Any = toynets.LABELS, **settings: Any) -> Pipeline:
        return toynets.loaded(tmp_path_factory.mktemp(name), source, name, labels, **settings)

    labels = [f"bit {bit}" for bit in range(BITS + 4)]
    small = {
        "numbers": toy(watermark.NETWORK.read_text(), "Watermark", labels, max_forwards=2 * BITS, tape=False),
        "failing": toy(FRAGILE, "Fragile"),
        "failing backward": toy(FRAGILE, "FragileBackward"),
        "full": toy(toynets.SEEDED, "Cramped"),
    }
    small["full"].engine.network.room = 2
    small["full"].engine.tape = None  # as on a GPU
    with opened(Recipe("classifier", embedded.ARCHITECTURE)) as default:
        yield {**small, "default": default}


def standing(pipeline: Pipeline) -> dict[str, Any]:
    """All that an explanation could leave behind in a network, or in torch."""
    network = pipeline.engine.network
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        "modules": {name: (id(one), one.training) for name, one in network.named_modules()},
        "hooks": {name: [len(getattr(one, kind) or ()) for kind in HOOKS] for name, one in network.named_modules()},
        "hooks everywhere": [len(getattr(torch.nn.modules.module, f"_global{kind}")) for kind in HOOKS],
        "tensors": {
            name: (id(one), one.requires_grad, one.grad, one._backward_hooks, one._version)
            for name, one in tensors.items()
        },
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._C._len_torch_function_stack()),
    }


def wishes(pipeline: Pipeline, all_of_them: bool) -> list[dict[str, Any]]:
    """Every method at the default layer and at earlier ones, and all that changes how a map is made; or some."""
    layers = list(pipeline.engine.layers)
    chosen = sorted({layers[0], layers[len(layers) // 2], pipeline.engine.default})
    found: list[dict[str, Any]] = [{"verify": "true"}, {"method": "saliency"}]
    found += [{"method": "layercam", "layer": layers[-len(layers) // 4]}]
    if all_of_them:
        found += [{"channels": 4}, {"polarity": "both"}, {"classes": "top:3"}]
        for name, method in METHODS.items():
            found += [{"method": name, "layer": layer} for layer in chosen] if method.has_layer else [{"method": name}]
    return [{"explain": "true", "maps": "grid", **options} for options in found]


def faults() -> list[Row]:
    """Rows that are refused, and one whose class fails."""
    return [
        toynets.row(b""),
        toynets.row(b"no picture"),
        toynets.row(NUMBER[: len(NUMBER) // 2], explain="true"),
        toynets.row(explain="true", wish="1"),
        toynets.row(explain="true", classes="9999"),
        toynets.row(explain="true", contrast="3", classes="3"),
        toynets.row(explain="true", contrast="runner_up", classes="top:3"),
    ]


@pytest.mark.parametrize("name", ["numbers", "failing", "failing backward", "full", "default"])
def test_no_answer_leaves_anything_behind(name, pipelines):
    pipeline = pipelines[name]
    before = standing(pipeline)
    images = [WHITE, NUMBER] if name != "default" else [cat()]
    rows = [
        toynets.row(image, **options) for options in wishes(pipeline, name != "default") for image in images
    ] + faults()
    statuses = []
    for row in rows:
        (answer,) = pipeline.answer([row])
        statuses.append(toynets.parsed(answer).get("explanation", {}).get("status", answer.status))
        assert standing(pipeline) == before, {key: row.fields[key] for key in row.fields if key != "data"}
    for start in range(0, len(rows), BATCH):
        pipeline.answer(rows[start : start + BATCH])
        assert standing(pipeline) == before
    assert "ok" in statuses
    assert 400 in statuses
    assert ("failed" in statuses) == name.startswith("failing"), statuses


def predicted(pipeline: Pipeline, rows: list[Row]) -> list[Mapping[str, Any]]:
    """What the rows of one batch are predicted, to the last bit."""
    return [toynets.good(answer)["predictions"] for answer in pipeline.answer(rows)]


@pytest.mark.parametrize("name", ["numbers", "failing", "failing backward", "default"])
def test_explained_neighbours_change_no_bit_of_a_prediction(name, pipelines):
    pipeline = pipelines[name]
    last = NUMBER if name == "numbers" else WHITE  # the white one is told what is going on
    images = [cat(), NUMBER, coffee(), last] * (BATCH // 4)
    plain = [toynets.row(image, topk=20) for image in images]
    alone = predicted(pipeline, plain)
    assert predicted(pipeline, plain) == alone, "the same batch twice"
    for options in wishes(pipeline, name != "default"):
        if pipeline.answer([toynets.row(**options)])[0].status == 400:
            continue  # not for this network
        mixed = [row if n in (0, 3, 6) else toynets.row(images[n], topk=20, **options) for n, row in enumerate(plain)]
        assert predicted(pipeline, mixed) == alone, options
    assert predicted(pipeline, plain) == alone, "after all explanations"


class _Mallinfo(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def in_use() -> tuple[int, int]:
    """Bytes that the C library has given out and not got back, and blocks that Python has; freed memory is in neither.

    A worker's resident memory hides a leak for long: it keeps up to a gigabyte of freed memory, which fills first.
    """
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    gc.collect()
    found = mallinfo()
    return found.uordblks + found.hblkhd, sys.getallocatedblocks()


def test_answers_leave_no_memory_behind(pipelines):
    pipeline = pipelines["numbers"]
    rows = [toynets.row(image, **options) for options in wishes(pipeline, False) for image in (NUMBER, cat())]
    rows += [toynets.row(cat(), explain="true", maps="overlay,heatmap,regions"), toynets.row(), *faults()]

    def answer(times: int) -> None:
        for _ in range(times):
            pipeline.answer(rows[:BATCH])
            pipeline.answer(rows[BATCH:])

    answer(WARM)
    before = in_use()
    answer(PASSES)
    after = in_use()
    grown = [(late - early) / (PASSES * len(rows)) for early, late in zip(before, after, strict=True)]
    assert grown[0] < BYTES_AN_ANSWER, f"{grown[0]:.0f} bytes stay of each answer"
    assert grown[1] < BLOCKS_AN_ANSWER, f"{grown[1]:.1f} Python objects stay of each answer"


def test_what_was_answered_waits_for_no_garbage_collector(pipelines):
    """An error that holds the frames it was raised in holds its batch, until cycles are looked for."""
    pipeline = pipelines["numbers"]
    rows = [toynets.row(NUMBER, **options) for options in wishes(pipeline, False)] + faults()

    def held() -> Counter[str]:
        return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in HELD)

    gc.collect()
    gc.disable()
    try:
        before = held()
        for start in range(0, len(rows), BATCH):
            pipeline.answer(rows[start : start + BATCH])
        assert held() - before == Counter()
    finally:
        gc.enable()
