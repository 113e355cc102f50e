"""The engine against autograd by hand and the second implementation, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reference
from camserve.cam import engine as engines
from camserve.cam.engine import FAILED, LATE, Engine
from camserve.cam.gates import prove
from camserve.cam.methods import METHODS
from camserve.clock import Deadline
from camserve.model.architectures import TOKENS
from camserve.records import Task
from networks import CLASSES, DEFAULTS, EXACT, KINDS, Patches, inputs, network, seeded

LAYERS = {
    "closed form": ("features", "early"),
    "in-place ReLU": ("features", "early"),
    "tail gradient": ("features.2", "features", "early"),
    "conv head": ("features", "early"),
    "auxiliary head": ("mix", "left", "early"),
    "shared module": ("act", "two"),
}
CASES = [(kind, layer, method) for kind in KINDS for layer in LAYERS[kind] for method in reference.METHODS]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def engine_of():
    """engine_of(kind): the proven engine of a network; each is proven once."""
    proven: dict[str, Engine] = {}

    def get(kind: str) -> Engine:
        if kind not in proven:
            proven[kind] = prove(network(kind), inputs(), CLASSES, None)
        return proven[kind]

    return get


def task(method="gradcam", layer="", classes=1, contrast=None, polarity="positive") -> Task:
    return Task(method, layer, classes, contrast, polarity)


def by_hand(net: nn.Module, layer: str, calls: int, one: Tensor, score) -> tuple[np.ndarray, np.ndarray]:
    """Activations and gradient of one picture at a layer, through the whole graph and a plain hook."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> Tensor:
        output.retain_grad()
        kept.append(output)
        return output.clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    try:
        score(net(one.clone().requires_grad_(True))[0]).backward()
    finally:
        handle.remove()
    last = kept[calls - 1]
    return last.detach().numpy()[0], last.grad.numpy()[0]


def asked(method: str, layer: str) -> list[Task]:
    """Four rows that use what the method takes."""
    takes = METHODS[method].takes
    if not takes["classes"]:
        return [task(method, layer)] * 4
    return [
        task(method, layer, 2),
        task(method, layer, (3,), contrast=7),
        task(method, layer, (1, 5), polarity="negative" if takes["polarity"] else "positive"),
        task(method, layer, 1, contrast="runner_up", polarity="both" if takes["polarity"] else "positive"),
    ]


def expected(engine: Engine, one: Tensor, ask: Task, class_id: int, contrast: int | None) -> np.ndarray:
    """The map by the reference, in the engine's scale."""
    sign = -1.0 if ask.polarity == "negative" else 1.0
    layer = engine.layers[ask.layer]
    score = lambda logits: sign * (logits[class_id] - (0 if contrast is None else logits[contrast]))
    A, G = by_hand(engine.network, ask.layer, layer.calls, one, score)
    if engine.closed_form and ask.layer == engine.closed_form.layer:
        if engine.closed_form.then is torch.nn.functional.relu:
            # The exact map is of what is pooled: the rectified output, whose gradient is the head's everywhere.
            weight = engine.closed_form.weight.double().numpy()
            row = weight[class_id] - (0 if contrast is None else weight[contrast])
            A, G = np.maximum(A, 0), np.broadcast_to(sign * row[:, None, None] / A[0].size, A.shape)
        if METHODS[ask.method].linear:
            return sign * reference.METHODS[ask.method](A, G) * A[0].size
    return sign * reference.METHODS[ask.method](A, G)


def assert_close(ours: np.ndarray, theirs: np.ndarray, relative: float = 1e-5) -> None:
    assert np.abs(theirs).max() > 1e-9, "a map of zeros proves nothing"
    np.testing.assert_allclose(ours, theirs, atol=relative * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize(("kind", "layer", "method"), CASES, ids=["-".join(case) for case in CASES])
def test_maps_equal_the_reference(engine_of, kind, layer, method):
    engine, batch = engine_of(kind), inputs(4, seed=2)
    asks = asked(method, layer)
    trace = engine.forward(batch, asks)
    order = trace.logits.detach().argsort(1, descending=True)
    for row, maps in enumerate(engine.maps(trace, asks)):
        for one in maps:
            assert one.failure is None
            assert_close(one.map, expected(engine, batch[row : row + 1], asks[row], one.class_id, one.contrast))
    if not METHODS[method].discriminative:
        return
    first, _, _, last = engine.maps(engine.forward(batch, asks), asks)
    assert [one.class_id for one in first] == order[0, :2].tolist()
    assert (last[0].class_id, last[0].contrast) == tuple(order[3, :2].tolist())


@pytest.mark.parametrize("kind", sorted(EXACT))
def test_cam_is_the_heads_weights_on_what_is_pooled(engine_of, kind):
    engine, batch = engine_of(kind), inputs(2, seed=3)
    ask = task("cam", engine.default, (2, 4))
    trace = engine.forward(batch, [ask, None])
    A = engine.closed_form.then(trace.captured[engine.default][0].clone()).numpy()
    for one in engine.maps(trace, [ask, None])[0]:
        assert_close(one.map, reference.cam(A, engine.network.head.weight[one.class_id].numpy()))


def test_the_default_layer_and_exactness(kind, engine_of):
    engine = engine_of(kind)
    assert engine.default == DEFAULTS[kind]
    for method in ("gradcam", "hirescam", "xgradcam"):
        assert engine.is_exact(method, engine.default) == (kind in EXACT)
    assert not engine.is_exact("layercam", engine.default)
    assert not engine.is_exact("gradcam", next(iter(engine.layers)))


@pytest.mark.parametrize("method", ["cam", "gradcam", "hirescam", "xgradcam"])
@pytest.mark.parametrize("kind", sorted(EXACT))
def test_exact_maps_complete_to_the_logit(engine_of, kind, method):
    engine, batch = engine_of(kind), inputs(3, seed=4)
    asks = [task(method, engine.default, tuple(range(CLASSES))), None, task(method, engine.default, 3, "runner_up")]
    trace = engine.forward(batch, asks)
    for row, maps in enumerate(engine.maps(trace, asks)):
        for one in maps:
            logit = trace.logits[row, one.class_id] - (0 if one.contrast is None else trace.logits[row, one.contrast])
            assert abs(one.map.mean() + one.bias - float(logit)) <= 1e-5 * max(1.0, abs(float(logit)))


def test_methods_that_are_not_exact_claim_no_bias(engine_of):
    engine = engine_of("closed form")
    asks = [task("layercam", "features"), task("gradcam", "early")]
    assert [maps[0].bias for maps in engine.maps(engine.forward(inputs(2), asks), asks)] == [None, None]


def mixed(engine: Engine) -> list[Task | None]:
    """Eight rows that have nothing in common."""
    first, last = next(iter(engine.layers)), engine.default
    return [
        None,
        task("gradcam", last, 1),
        task("layercam", first, 3),
        task("hirescam", last, (1, 2, 3, 4, 5), contrast="runner_up"),
        None,
        task("gradcam", first, (9,), contrast=0, polarity="negative"),
        task("hirescam", first, 2, polarity="both"),
        task("layercam", last, (0, 6)),
    ]


def test_a_mixed_batch_equals_single_rows_and_does_not_change_logits(kind, engine_of):
    engine, batch = engine_of(kind), inputs(8, seed=5)
    with torch.inference_mode():
        plain = engine.network(batch)
    asks = mixed(engine)
    trace = engine.forward(batch, asks)
    assert torch.equal(trace.logits.detach(), plain)
    for row, maps in enumerate(engine.maps(trace, asks)):
        alone = engine.maps(engine.forward(batch[row : row + 1], [asks[row]]), [asks[row]])[0]
        assert [one.class_id for one in maps] == [one.class_id for one in alone]
        for one, other in zip(maps, alone, strict=True):
            np.testing.assert_allclose(one.map, other.map, atol=1e-9)


def test_logits_in_float32_are_bit_equal_in_every_mode(kind):
    net = network(kind).float()
    engine = prove(net, inputs().float(), CLASSES, None)
    batch = inputs(8, seed=6).float()
    with torch.inference_mode():
        plain = net(batch)
    assert torch.equal(engine.forward(batch, [None] * 8).logits, plain)
    assert torch.equal(engine.forward(batch, [task("gradcam", engine.default)] * 8).logits.detach(), plain)
    assert torch.equal(engine.forward(batch, mixed(engine)).logits.detach(), plain)


def test_tokens_are_laid_out_in_space():
    net = seeded(Patches)
    layout = TOKENS["timm/vit_"]
    engine = prove(net, inputs(), CLASSES, "norm", layout)
    assert engine.layers["norm"].grid == (8, 8)
    asks = [task(method, "norm", (4,)) for method in reference.METHODS]
    one = inputs(1, seed=7)
    A, G = by_hand(net, "norm", 1, one, lambda logits: logits[4])
    A, G = (part[1:].T.reshape(16, 8, 8) for part in (A, G))  # without the class token, row by row
    found = engine.maps(engine.forward(one.repeat(len(asks), 1, 1, 1), asks), asks)
    for ask, maps in zip(asks, found, strict=True):
        assert_close(maps[0].map, reference.METHODS[ask.method](A, G))


# --- cost ---------------------------------------------------------------------------------------------------


def counted(monkeypatch) -> list[str]:
    calls: list[str] = []
    original = torch.autograd.grad

    def grad(*args, **kwargs):
        calls.append("backward")
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    return calls


@pytest.mark.parametrize(
    ("kind", "asks", "backwards"),
    [
        ("closed form", [task("gradcam", "features", 5), None, task("layercam", "features", 2)], 0),
        ("tail gradient", [task("gradcam", "features.2", 5), None, task("layercam", "features.2", 2)], 5),
        ("tail gradient", [None, None, None], 0),
        ("tail gradient", [task("gradcam", "features.2"), task("gradcam", "early"), task("hirescam", "early")], 1),
    ],
    ids=["closed form", "as many as the most classes", "plain rows", "one serves all layers"],
)
def test_one_forward_and_no_more_backwards_than_needed(engine_of, monkeypatch, kind, asks, backwards):
    engine = engine_of(kind)
    forwards = []
    handle = engine.network.register_forward_hook(lambda *_: forwards.append("forward"))
    try:
        calls = counted(monkeypatch)
        engine.maps(engine.forward(inputs(3), asks), asks)
    finally:
        handle.remove()
    assert (len(forwards), len(calls)) == (1, backwards)


# --- time ---------------------------------------------------------------------------------------------------


class Looks(Deadline):
    """Passes once it was looked at so many times."""

    def __init__(self, most: int) -> None:
        self.left = most

    @property
    def passed(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("method", ["gradcam", "saliency"])
def test_classes_after_the_deadline_are_given_up(engine_of, method):
    engine = engine_of("tail gradient")
    ask = task(method, "features.2" if method == "gradcam" else "", 5)
    (maps,) = engine.maps(engine.forward(inputs(1), [ask]), [ask], Looks(2))
    assert [one.map is not None for one in maps] == [True, True, False, False, False]
    assert [one.failure for one in maps[2:]] == [LATE] * 3


def test_maps_after_the_deadline_are_not_verified_but_kept(engine_of):
    engine = engine_of("closed form")
    ask = replace(task("gradcam", "features", 5), verify=True)
    (maps,) = engine.maps(engine.forward(inputs(1), [ask]), [ask], Looks(2))
    assert all(one.map is not None for one in maps)
    assert [one.verification is not None for one in maps] == [True, True, False, False, False]


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_score_that_does_not_depend_on_the_layer_has_a_map_of_zeros(engine_of):
    # The score of a class against itself is zero whatever the layer holds; the class is told so instead.
    engine = engine_of("tail gradient")
    asks = [task("gradcam", engine.default, (3,), contrast=3), task("gradcam", engine.default, (3,))]
    itself, other = engine.maps(engine.forward(inputs(2), asks), asks)
    assert itself[0].failure == "The contrast is the explained class itself."
    assert other[0].map.any()


def test_a_class_that_its_layer_cannot_reach_has_a_map_of_zeros():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 4, 3, 4, 1)
            self.head = nn.Linear(4, CLASSES - 1)

        def forward(self, x: Tensor) -> Tensor:
            rest = self.head(self.features(x).mean((2, 3)))
            return torch.cat([rest, rest.new_full((len(x), 1), 0.5)], 1)

    engine = prove(seeded(Constant), inputs(), CLASSES, None)
    ask = task("gradcam", "features", (CLASSES - 1, 0))
    unreached, reached = engine.maps(engine.forward(inputs(1), [ask]), [ask])[0]
    assert not unreached.map.any()
    assert reached.map.any()


def test_a_hooked_forward_that_fails_leaves_the_prediction(engine_of, monkeypatch):
    engine, batch = engine_of("tail gradient"), inputs(2)
    with torch.inference_mode():
        plain = engine.network(batch)

    def broken(layers, graph):
        if layers:
            raise MemoryError("no room for what the hooks keep")
        return original(layers, graph)

    original = engines.capture
    monkeypatch.setattr(engines, "capture", broken)
    asks = [None, task("gradcam", engine.default, 2)]
    trace = engine.forward(batch, asks)
    assert torch.equal(trace.logits, plain)
    assert [one.failure for one in engine.maps(trace, asks)[1]] == [FAILED, FAILED]


def test_a_backward_that_fails_spares_the_closed_form(engine_of, monkeypatch):
    engine = engine_of("closed form")
    asks = [task("gradcam", "features"), task("gradcam", "early")]
    trace = engine.forward(inputs(2), asks)
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: (_ for _ in ()).throw(MemoryError("no room")))
    closed, tail = engine.maps(trace, asks)
    assert closed[0].map.any()
    assert tail[0].failure == FAILED


def test_a_map_that_is_not_finite_is_a_failure_of_its_class_only(engine_of):
    engine, batch = engine_of("closed form"), inputs(2)
    asks = [task("gradcam", "features"), task("gradcam", "features")]
    trace = engine.forward(batch, asks)
    with torch.inference_mode():
        trace.captured["features"][0, 0, 0, 0] = float("nan")
    bad, good = engine.maps(trace, asks)
    assert (bad[0].map, bad[0].failure) == (None, "The map is not finite.")
    assert np.isfinite(good[0].map).all()
