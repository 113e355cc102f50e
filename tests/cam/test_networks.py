"""Real architectures at their own input sizes, each proven and compared with float64 autograd by hand.

The networks and what is expected of them stand in catalogue.py; docs/networks.md says the same to readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import catalogue
from camserve.cam.gates import BATCHES
from camserve.model.architectures import published_preprocessing
from catalogue import NETWORKS, Findings, Network

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
NAMES = [network.architecture for network in NETWORKS]

HEAVY = {
    "torchvision/vgg16",
    "torchvision/vgg19",
    "torchvision/resnet50",
    "torchvision/densenet121",
    "torchvision/densenet201",
    "torchvision/googlenet",
    "torchvision/inception_v3",
    "torchvision/convnext_tiny",
    "torchvision/vit_b_16",
    "torchvision/swin_t",
    "timm/legacy_xception",
    "timm/vit_base_patch16_224",
    "timm/swin_tiny_patch4_window7_224",
}
"""Proven on 1 and 2 rows here to save time; benchmarks/networks.py proves them on 1 and 8, as a worker does."""


@pytest.fixture(scope="module", autouse=True)
def exact_attention() -> Iterator[None]:
    """What `load_network` does for the process."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.fixture(scope="module", params=NETWORKS, ids=NAMES)
def case(request) -> tuple[Network, Findings]:
    """A network and what was found of it, once for all its tests; the gates have passed, or this raises."""
    network = request.param
    return network, catalogue.examine(network, 2 if network.architecture in HEAVY else max(BATCHES))


@pytest.mark.parametrize("network", NETWORKS, ids=NAMES)
def test_its_input_is_of_the_published_size(network):
    published = published_preprocessing(network.architecture)
    assert published is None or published.crop == network.side


def test_its_default_layer_is_found(case):
    network, found = case
    assert (found.layer, found.channels) == (network.layer, network.channels)


def test_its_map_has_the_layers_grid(case):
    network, found = case
    assert found.grid == (network.grid, network.grid)


def test_explaining_leaves_its_logits_bit_for_bit(case):
    _, found = case
    assert found.same_logits


def test_exactness_is_claimed_where_it_holds_and_nowhere_else(case):
    network, found = case
    assert found.exact == network.exact
    assert not found.other_exact
    if found.exact:
        assert found.ledger <= 1e-4
        assert found.nearest <= 1e-12  # by hand in float64: no accident of float32
    else:
        assert found.ledger is None
        assert found.nearest > 1e-2  # a hundred times what a claim allows


def test_its_maps_are_those_of_float64_autograd(case):
    _, found = case
    assert found.deviation <= 1e-3
    assert found.other_deviation <= 1e-5


def documented() -> dict[str, list[str]]:
    """The rows of the document's table by their first cell."""
    lines = (line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `"))
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_the_document_lists_the_networks_in_the_order_of_the_catalogue():
    assert list(documented()) == NAMES


@pytest.mark.parametrize("network", NETWORKS, ids=NAMES)
def test_the_document_says_what_is_expected(network):
    side, layer, channels, grid, exact, why, ledger, _ = documented()[network.architecture]
    assert side == str(network.side)
    assert layer == network.layer
    assert channels == str(network.channels)
    assert grid == f"{network.grid} x {network.grid}"
    assert exact == ("yes" if network.exact else "no")
    assert why == network.why
    assert (ledger == "-") == (not network.exact)
