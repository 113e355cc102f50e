"""What tutorials on class activation maps show, and the mistakes in their code; docs/tutorials.md is the list."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

import networks
import reference
from camserve.cam import gates
from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.model import embedded
from camserve.model.architectures import published_preprocessing
from camserve.model.labels import Labels
from camserve.options import parse
from camserve.pipeline import Pipeline
from camserve.records import Task
from networks import CLASSES, DEFAULTS, inputs, network
from pictures import encoded
from toynets import SEEDED, SIDE, good, grid, loaded, pixels, row

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these are slower on several threads, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def asked(pipeline: Pipeline, image: bytes | None = None, **options: object) -> dict:
    """The answer to a request that is explained."""
    return good(pipeline.answer([row(image, explain="true", **options)])[0])


def explained(pipeline: Pipeline, image: bytes | None = None, **options: object) -> dict:
    """The first explained class."""
    return asked(pipeline, image, **options)["explanation"]["classes"][0]


def map_of(engine: Engine, one: Tensor, class_id: int, method: str = "gradcam", layer: str = "") -> np.ndarray:
    """The signed map of one class."""
    ask = Task(method, layer or engine.default, (class_id,), None, "positive")
    ((found,),) = engine.maps(engine.forward(one, [ask]), [ask])
    assert found.failure is None
    return found.map


def by_hand(net: nn.Module, layer: str, one: Tensor, score: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, ...]:
    """Activations and gradient of one picture at a layer."""
    kept: list[Tensor] = []
    hook = lambda module, args, output: kept.append(output) or output.clone()
    handle = net.get_submodule(layer).register_forward_hook(hook)
    try:
        logits = net(one.clone().requires_grad_(True))
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(score(logits[0]), kept)
    return kept[0][0].detach().numpy(), gradient[0].numpy()


# --- networks taken apart and put together again ------------------------------------------------------------


class Vgg19(nn.Module):
    """torchvision's VGG19 with a narrow head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = make_layers(cfgs["E"])
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(nn.Linear(512 * 49, 20), nn.ReLU(True), nn.Linear(20, CLASSES))
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def small_densenet() -> nn.Module:
    return torchvision.models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=CLASSES)


def test_vgg_without_the_pool_behind_its_last_rectifier_is_another_network_and_ours_is_not():
    net, batch = networks.seeded(Vgg19).float(), inputs(8).float()
    with torch.no_grad():
        whole = net(batch)
        apart = net.classifier(net.avgpool(net.features[:36](batch)).flatten(1))  # features.36 is forgotten
    assert (apart - whole).abs().max() > 0.1 * whole.abs().max()

    engine = prove(net, batch, CLASSES, None)
    assert engine.default == "features.35"
    ask = Task("gradcam", "features.35", 1, None, "positive")
    trace = engine.forward(batch, [ask] * 8)
    assert all(maps[0].map.any() for maps in engine.maps(trace, [ask] * 8))
    assert torch.equal(trace.logits.detach(), whole)


def test_densenet_without_its_last_relu_is_another_network_and_the_proof_says_so(monkeypatch):
    net, batch = networks.seeded(small_densenet), inputs(8).repeat(1, 1, 2, 2)
    with torch.no_grad():
        whole, features = net(batch), net.features(batch)
        apart = net.classifier(features.mean((2, 3)))  # F.relu is forgotten
    assert 0.3 < float((features < 0).float().mean()) < 0.7
    assert (apart.argsort(1) != whole.argsort(1)).any()

    engine = prove(net, batch, CLASSES, None)
    assert engine.closed_form.then is F.relu
    assert engine.is_exact("gradcam", "features")
    monkeypatch.setattr(gates, "_THEN", {"identity": gates._THEN["identity"]})
    assert prove(net, batch, CLASSES, None).closed_form is None


def test_dropout_and_batch_norm_are_served_in_eval_mode(tmp_path):
    source = SEEDED + (
        "\n\nclass Dropping(Seeded):\n"
        "    def __init__(self):\n        super().__init__()\n        self.drop = nn.Dropout(0.5)\n\n"
        "    def forward(self, x):\n        return self.head(self.drop(self.features(self.early(x)).mean((2, 3))))\n"
    )
    pipeline = loaded(tmp_path, source, "Dropping")
    first, second = (asked(pipeline, maps="overlay,grid", topk=10) for _ in range(2))
    assert first["predictions"] == second["predictions"]
    assert first["explanation"] == second["explanation"]

    net, one = pipeline.engine.network.train(), torch.rand(1, 3, SIDE, SIDE)
    assert not torch.equal(net.head(net.drop(torch.ones(1, 16))), net.head(net.drop(torch.ones(1, 16))))
    with pytest.raises(Exception, match="not in eval mode"):
        prove(net, one.expand(8, -1, -1, -1), 10, None)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("architecture", "constants", "side"),
    [
        ("torchvision/resnet50", IMAGENET, 224),
        ("torchvision/vgg16", IMAGENET, 224),
        ("torchvision/vgg19", IMAGENET, 224),
        ("torchvision/densenet201", IMAGENET, 224),
        ("timm/legacy_xception", HALVES, 299),
        ("timm/tf_efficientnet_lite0", HALVES, 224),
    ],
)
def test_the_constants_of_the_preprocessing_are_the_networks_own(architecture, constants, side):
    found = published_preprocessing(architecture)
    assert (tuple(found.mean), tuple(found.std)) == constants
    assert (found.crop, found.squash) == (side, False)


# --- which classes, and how many ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "backwards"), [("features", 0), ("early.1", 8)], ids=["closed form", "tail gradient"]
)
def test_the_likeliest_eight_in_one_request_equal_eight_requests_and_cost_one_forward(
    seeded, monkeypatch, layer, backwards
):
    monkeypatch.setattr(seeded.engine, "tape", None)  # counted at the network, which a tape does not call
    cost: Counter[str] = Counter()
    plain = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: cost.update(["backward"]) or plain(*a, **k))
    handle = seeded.engine.network.register_forward_hook(lambda *_: cost.update(["forward"]))
    try:
        together = asked(seeded, classes="top:8", topk=8, maps="overlay,grid,regions", layer=layer)
    finally:
        handle.remove()
    assert cost == Counter(forward=1, backward=backwards)

    likeliest = [found["class_id"] for found in together["predictions"]]
    alone = [explained(seeded, classes=k, maps="overlay,grid,regions", layer=layer) for k in likeliest]
    assert len({one["grid"]["data"] for one in alone}) == 8
    assert together["explanation"]["classes"] == alone


NAMED = {
    "dock": 536,
    "pier": 718,
    "suspension bridge": 839,
    "gondola": 576,
    "breakwater": 460,
    "dam": 525,
    "African elephant": 386,
    "Indian elephant": 385,
    "tusker": 101,
    "great white shark": 2,
    "common iguana": 39,
    "American alligator": 50,
    "schipperke": 223,
    "Siamese cat": 284,
    "tiger cat": 282,
    "bullet train": 466,
    "Labrador retriever": 208,
    "goldfish": 1,
    "Siberian husky": 250,
    "mushroom": 947,
    "monarch": 323,
}


def test_the_classes_of_the_tutorials_are_found_by_their_names():
    labels = Labels(embedded.imagenet_labels())
    assert {name: labels.find(name) for name in NAMED} == NAMED


def test_classes_of_interest_by_name_come_in_the_order_of_the_request(tmp_path):
    thousand = SEEDED.replace("classes=10", "classes=1000")
    pipeline = loaded(tmp_path, thousand, labels=embedded.imagenet_labels())
    names = ["dock", "pier", "suspension bridge", "gondola", "breakwater", "dam"]
    found = asked(pipeline, classes=",".join(names), maps="overlay,grid")["explanation"]["classes"]
    assert [(one["label"], one["class_id"]) for one in found] == [(name, NAMED[name]) for name in names]
    assert len({one["grid"]["data"] for one in found}) == 6
    assert [pixels(one["overlay"]).shape for one in found] == [(300, 451, 3)] * 6


# --- the score, its sign, its channels ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["closed form", "tail gradient"])
def test_a_certain_class_keeps_its_map_where_the_softmax_gradient_vanishes(kind):
    net, one, layer = network(kind), inputs(1), DEFAULTS[kind]
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    chance = lambda logits: logits.softmax(0)[3]

    def both() -> tuple[np.ndarray, np.ndarray]:
        return map_of(prove(net, inputs(), CLASSES, None), one, 3), reference.gradcam(*by_hand(net, layer, one, chance))

    unsure, of_softmax = both()
    last.bias[3] += 60
    certain, of_certain_softmax = both()
    assert float(chance(net(one)[0])) == pytest.approx(1, abs=1e-15)
    np.testing.assert_array_equal(certain, unsure)
    assert np.abs(unsure).max() > 0
    assert np.abs(of_certain_softmax).max() < 1e-9 * np.abs(of_softmax).max()


def test_every_channel_has_its_own_weight_and_all_parts_add_up_to_the_map():
    """A loop over the batch, not the channels, weighs all of them by channel 0: an average of the activations."""
    net, one = network("tail gradient"), inputs(1)
    engine = prove(net, inputs(), CLASSES, None)
    A, G = by_hand(net, "features.2", one, lambda logits: logits[3])
    weights = G.mean((1, 2))
    assert len(A) == len(np.unique(weights)) == 12

    ask = Task("gradcam", "features.2", (3,), None, "positive", channels=12)
    ((found,),) = engine.maps(engine.forward(one, [ask]), [ask])
    for channel in found.channels:
        part = weights[channel.index] * A[channel.index]
        np.testing.assert_allclose(channel.map, part, atol=1e-6 * np.abs(part).max())
    assert sorted(channel.index for channel in found.channels) == list(range(12))
    np.testing.assert_allclose(sum(channel.map for channel in found.channels), found.map, atol=1e-6)
    assert sum(channel.share for channel in found.channels) == pytest.approx(1)

    mistaken = (G[0].mean() * A).mean(0)
    likeness = np.corrcoef(mistaken.ravel(), found.map.ravel())[0, 1]
    assert abs(likeness) < 0.9


def test_the_papers_map_is_the_positive_part_and_the_rest_is_kept():
    net, one = network("tail gradient"), inputs(1)
    engine = prove(net, inputs(), CLASSES, None)
    of_paper = np.maximum(reference.gradcam(*by_hand(net, "features.2", one, lambda logits: logits[3])), 0)
    signed = map_of(engine, one, 3)
    assert of_paper.any()
    np.testing.assert_allclose(np.maximum(signed, 0), of_paper, atol=1e-6 * of_paper.max())
    assert signed.min() < -0.1 * signed.max()


def test_a_thousand_explanations_leave_the_network_as_it_was():
    net = network("closed form")
    engine = prove(net, inputs(), CLASSES, None)
    with torch.no_grad():
        before = net(inputs(2))
    asks = [
        *(Task(method, "early", 1, None, "positive") for method in ("gradcam", "gradcam++", "layercam")),
        *(Task(method, engine.default, 1, None, "positive") for method in ("cam", "hirescam", "eigencam")),
        *(Task(method, "input", 1, None, "positive") for method in ("saliency", "guided_backprop")),
    ]
    for turn in range(125):
        found = engine.maps(engine.forward(inputs(8, seed=turn), asks), asks)
        assert [maps[0].failure for maps in found] == [None] * 8
    for module in net.modules():
        assert not [*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks]
    assert not any(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    with torch.no_grad():
        assert torch.equal(net(inputs(2)), before)


# --- planted evidence ---------------------------------------------------------------------------------------

COLOURS = '''
import torch
from torch import nn


class Colours(nn.Module):
    """8 x 8 cells: one channel holds how red a cell is, another how blue. Logits: red, blue, neither."""

    def __init__(self):
        super().__init__()
        self.cells = nn.Conv2d(3, 2, 8, stride=8, bias=False)
        self.act = nn.ReLU()
        self.head = nn.Linear(2, 3)
        with torch.no_grad():
            self.cells.weight.zero_()
            self.cells.weight[0, 0] = self.cells.weight[1, 2] = 1 / 64
            self.head.weight.copy_(torch.tensor([[8.0, -4.0], [-4.0, 8.0], [0.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.act(self.cells(x)).mean((2, 3)))
'''
RED, BLUE = (255, 0, 0), (0, 0, 255)
UPPER_LEFT, LOWER_RIGHT = (slice(0, 32),) * 2, (slice(32, 64),) * 2


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Pipeline:
    return loaded(tmp_path_factory.mktemp("colours"), COLOURS, "Colours", ("red", "blue", "neither"))


def mosaic(**planted: tuple[int, int, int]) -> np.ndarray:
    """Black with a coloured square of 3 x 3 cells inside the upper left and the lower right quarter."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[8:32, 8:32] = planted.get("upper_left", 0)
    picture[32:56, 32:56] = planted.get("lower_right", 0)
    return picture


def chances(answer: dict) -> dict[str, float]:
    return {found["label"]: found["probability"] for found in answer["predictions"]}


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam"])
def test_a_counterfactual_lies_on_the_other_class_and_hiding_it_helps(colours, method):
    both = mosaic(upper_left=RED, lower_right=BLUE)
    share = {}
    for polarity in ("positive", "negative"):
        ask = {"classes": "red", "polarity": polarity, "maps": "heatmap", "method": method}
        heat = pixels(explained(colours, encoded(both), **ask)["heatmap"]).astype(float)
        share[polarity] = [heat[where].sum() / heat.sum() for where in (UPPER_LEFT, LOWER_RIGHT)]
    assert share["positive"][0] > 0.9
    assert share["negative"][1] > 0.9

    before = chances(asked(colours, encoded(both)))
    hidden = both.copy()
    hidden[LOWER_RIGHT] = 0
    after = chances(asked(colours, encoded(hidden)))
    assert before["red"] == pytest.approx(before["blue"], abs=1e-6)
    assert after["red"] > before["red"] + 0.2


def test_a_map_that_is_negative_everywhere_is_empty_and_never_nan(colours):
    blue = np.full((SIDE, SIDE, 3), BLUE, np.uint8)
    ask = {"classes": "red", "maps": "overlay,heatmap,grid,regions", "image_format": "png"}
    found = explained(colours, encoded(blue), **ask)
    assert (found["status"], found["regions"]) == ("empty_map", [])
    assert (grid(found) < 0).all()
    np.testing.assert_array_equal(pixels(found["overlay"]), blue)
    assert not pixels(found["heatmap"]).any()


def test_the_overlay_is_jet_at_four_tenths_over_the_picture_byte_for_byte(colours):
    """As one writes it with OpenCV. Cells are 0 or 1, so that every way to interpolate gives the same floats."""
    hot = np.random.default_rng(5).random((8, 8)) < 0.3
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:, :, 0] = np.kron(hot, np.ones((8, 8))) * 255
    picture[:, :, 1] = np.random.default_rng(6).integers(0, 256, (SIDE, SIDE))  # green says nothing here
    found = explained(colours, encoded(picture), classes="red", maps="overlay,grid", image_format="png")

    cam = np.maximum(grid(found), 0)
    np.testing.assert_array_equal(cam / cam.max(), hot.astype(float))
    large = cv2.resize(hot.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap(np.rint(255 * large).astype(np.uint8), cv2.COLORMAP_JET)
    blended = cv2.addWeighted(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), 0.6, heat, 0.4, 0)
    np.testing.assert_array_equal(pixels(found["overlay"]), cv2.cvtColor(blended, cv2.COLOR_BGR2RGB))


class Copies(nn.Module):
    """Every channel sees copies of one colour; the class is the sum of what is above a threshold.

    So the gradient is one on a copy and zero beside it, however large the copy is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        self.act = nn.ReLU()
        self.head = nn.Linear(3, 2, bias=False)
        self.cells.weight.data.zero_()
        for colour in range(3):
            self.cells.weight.data[colour, colour] = 1 / 16
        self.head.weight.data.copy_(torch.tensor([[1.0, 1.0, 1.0], [0.5, -0.5, 0.2]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.act(self.cells(x)) - 0.1).sum((2, 3)))


def test_gradcam_plus_plus_shows_every_copy_and_gradcam_the_largest():
    net = networks.seeded(Copies)
    engine = prove(net, torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double(), 2, None)
    copies = {0: slice(1, 6), 1: slice(7, 10), 2: slice(12, 14)}  # 5 x 5, 3 x 3 and 2 x 2 cells
    one = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    for colour, cells in copies.items():
        where = slice(4 * cells.start, 4 * cells.stop)
        one[0, colour, where, where] = 1

    def shown(method: str) -> list[float]:
        cam = map_of(engine, one, 0, method, "act")
        return [float(cam[cells, cells].mean() / cam.max()) for cells in copies.values()]

    assert shown("gradcam") == pytest.approx([1, 9 / 25, 4 / 25], abs=1e-6)
    assert min(shown("gradcam++")) > 0.7


def stripes(kind: int, generator: torch.Generator, quarter: int | None = None) -> Tensor:
    """A 32 x 32 picture with faint noise and a striped square, lying (0) or upright (1), in one of its quarters."""
    picture = 0.1 * torch.randn(3, 32, 32, generator=generator)
    place = int(torch.randint(4, (), generator=generator)) if quarter is None else quarter
    top, left = 16 * (place // 2) + 2, 16 * (place % 2) + 2
    pattern = (torch.arange(12) // 2 % 2).float().expand(12, 12)
    picture[:, top : top + 12, left : left + 12] += pattern.T if kind == 0 else pattern
    return picture


class Pooling(nn.Module):
    """Convolutions, a global average pool, and one linear model a class."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture(scope="module")
def trained() -> Engine:
    """The pooled network, trained to tell lying stripes from upright ones; it is never told where they are."""
    torch.manual_seed(0)
    net, generator = Pooling(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        kinds = torch.randint(2, (32,), generator=generator)
        batch = torch.stack([stripes(int(kind), generator) for kind in kinds])
        optimizer.zero_grad()
        F.cross_entropy(net(batch), kinds).backward()
        optimizer.step()
    return prove(net.eval().requires_grad_(False), torch.randn(8, 3, 32, 32, generator=generator), 2, None)


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_a_network_trained_on_classes_alone_shows_where_they_are(trained, method):
    generator = torch.Generator().manual_seed(2)
    for turn in range(12):
        lying, upright = turn % 4, (turn + 1 + turn // 4) % 4
        one = (stripes(0, generator, lying) + stripes(1, generator, upright))[None]
        for class_id, quarter in ((0, lying), (1, upright)):
            evidence = np.maximum(map_of(trained, one, class_id, method), 0)
            by_quarter = evidence.reshape(2, 4, 2, 4).sum((1, 3)).ravel() / evidence.sum()
            assert by_quarter.argmax() == quarter
            assert by_quarter[quarter] > 0.6


# --- the list -----------------------------------------------------------------------------------------------

LIST = (ROOT / "docs" / "tutorials.md").read_text(encoding="utf-8")
REFERENCES = sorted(set(re.findall(r"`(tests/[\w/]+(?:\.py(?:::\w+)?)?)`", LIST)))


def rows() -> list[list[str]]:
    """The rows of the tables, without their heads."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in LIST.splitlines() if line.startswith("|")]
    heads = {at - 1 for at, row in enumerate(cells) if set("".join(row)) <= {"-"}}
    return [row for at, row in enumerate(cells) if at not in heads and at - 1 not in heads]


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_test_that_the_list_names_exists(reference):
    path, _, name = reference.partition("::")
    assert (ROOT / path).exists()
    if name:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_list_names_a_test():
    assert len(rows()) > 40
    for one in rows():
        assert "`tests/" in one[-1], one


def test_every_test_of_this_file_is_on_the_list():
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) if node.name.startswith("test_")}
    of_the_list = {name for name in tests if "the_list" in name}
    assert tests - of_the_list == {r.partition("::")[2] for r in REFERENCES if r.startswith("tests/test_tutorials")}


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(\w+=[^`]*)`", LIST))))
def test_an_option_that_the_list_names_is_one(option):
    name, _, value = option.partition("=")
    assert getattr(parse({name: value}), name) is not None
