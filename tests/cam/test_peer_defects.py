"""Where a peer is wrong: what it computes, that this is not what the paper says, and that ours is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import AblationCAM, GradCAMPlusPlus, ScoreCAM
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import Tensor, nn
from torchcam import methods as torchcam

from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.cam.methods.eigencam import principal
from networks import inputs, seeded
from peers import (
    CLASSES,
    SIDE,
    by_size,
    captum_ablation,
    captum_guided_cam,
    from_grad_cam,
    from_torchcam,
    normalised,
    ours,
    pictures,
    proven,
    state,
)

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # theirs, about their own hooks
]


@pytest.fixture(scope="module")
def plain() -> Engine:
    return proven("resnet18")


@pytest.fixture(scope="module")
def steep() -> Engine:
    """Logits that lie apart, and large gradients."""
    return proven("resnet18", 300)


def same(one: np.ndarray, other: np.ndarray) -> None:
    """Above zero."""
    np.testing.assert_allclose(normalised(one), normalised(other), atol=1e-4)


def same_sign(one: np.ndarray, other: np.ndarray) -> None:
    """Below zero too."""
    np.testing.assert_allclose(by_size(one), by_size(other), atol=1e-4)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(normalised(one) - normalised(other)).max())


def plus_plus(A: Tensor, G: Tensor, added: float = 0) -> np.ndarray:
    """Chattopadhay et al. 2018, eq. 19 and 5, with something added to the denominator; in float64."""
    A, G = A.double(), G.double()
    below = 2 * G**2 + A.sum((1, 2), keepdim=True) * G**3 + added
    share = torch.where(G == 0, 0, G**2 / torch.where(below == 0, 1, below))
    return torch.einsum("c,chw->hw", (share * G.relu()).sum((1, 2)), A).numpy()


def test_pytorch_grad_cams_gradcam_plus_plus_adds_a_millionth_to_squares_that_are_smaller(plain, steep):
    """The denominator of eq. 19 holds squared gradients, which the added 1e-6 outweighs where gradients are small.

    A steep head makes them large, and then it agrees. Ours adds nothing and leaves out the cells of 0 / 0.
    """
    one = pictures(1)
    target, mine = ours(plain, "gradcam++", "layer3", one)
    theirs = from_grad_cam(GradCAMPlusPlus, plain.network, "layer3", one, target)
    A, G = state(plain.network, "layer3", one, target)
    assert float((G**2).median()) < 1e-6
    same(theirs, plus_plus(A, G, added=1e-6))
    same(mine, plus_plus(A, G))
    assert distance(mine, theirs) > 0.01

    target, mine = ours(steep, "gradcam++", "layer3", one)
    same(mine, from_grad_cam(GradCAMPlusPlus, steep.network, "layer3", one, target))


def test_torchcams_gradcam_plus_plus_never_divides(plain):
    """It divides alpha in place behind a boolean mask, which is a copy: alpha stays g^2, without its denominator.

    The weights are then sum g^2 max(g, 0), which no equation of the paper says. Ours are those of eq. 19.
    """
    one = pictures(1)
    target, mine = ours(plain, "gradcam++", "layer3", one)
    theirs = from_torchcam(torchcam.GradCAMpp, plain.network, "layer3", one, target)
    A, G = (part.double() for part in state(plain.network, "layer3", one, target))
    same(theirs, torch.einsum("c,chw->hw", (G**2 * G.relu()).sum((1, 2)), A).numpy())
    same(mine, plus_plus(A, G))
    assert distance(mine, theirs) > 0.01


def scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def enlarged(maps: Tensor, align_corners: bool = False) -> Tensor:
    return F.interpolate(maps, (SIDE, SIDE), mode="bilinear", align_corners=align_corners)


class Masked:
    """Score-CAM of a layer with 24 x 24 cells, by whatever masks."""

    layer = "layer1"

    def __init__(self, net: nn.Module) -> None:
        self.net, self.one = net, pictures(1)
        self.target = int(net(self.one)[0].argmax())
        self.case = (net, self.layer, self.one, self.target)
        self.A = state(*self.case)[0]
        self.paper = self.map(scaled(enlarged(self.A[:, None])))

    def map(self, masks: Tensor) -> np.ndarray:
        """The channels, weighed by the scores of the picture under their masks (C x 1 x H x W)."""
        with torch.no_grad():
            scores = torch.cat([self.net(self.one * block)[:, self.target] for block in masks.split(32)])
        return torch.einsum("c,chw->hw", scores.softmax(0), self.A).numpy()


@pytest.fixture(scope="module")
def masked(steep) -> Masked:
    """Wang et al. 2020, algorithm 1: a mask is a channel enlarged, and then scaled to [0, 1]."""
    return Masked(steep.network)


def test_pytorch_grad_cams_scorecam_stretches_its_masks_to_the_corners(masked):
    """It enlarges with the centres of the outer cells on the picture's corners, up to half a cell from their place.

    Its own overlay, the paper's code and we leave the cells where they are.
    """
    theirs = from_grad_cam(ScoreCAM, *masked.case)
    same(theirs, masked.map(scaled(enlarged(masked.A[:, None], align_corners=True))))
    assert distance(theirs, masked.paper) > 0.01


def test_torchcams_scorecam_scales_its_masks_before_it_enlarges_them(masked):
    """A cell's peak falls between pixels, so its masks need not reach 1; the paper's, scaled last, all do."""
    early = enlarged(scaled(masked.A[:, None]))
    assert early.amax((2, 3)).min() < 0.9
    theirs = from_torchcam(torchcam.ScoreCAM, *masked.case)
    same(theirs, masked.map(early))
    assert distance(theirs, masked.paper) > 0.01


def test_our_scorecam_scales_its_masks_last_as_the_paper_does(steep, masked):
    _, mine = ours(steep, "scorecam", masked.layer, masked.one, masked.target)
    same(mine, masked.paper)


class Soft(nn.Module):
    """A layer whose activations are never zero, a mean and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.Softplus())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def test_pytorch_grad_cams_ablationcam_ablates_with_minus_ten_millions_where_no_activation_is_zero():
    """And the k-th channel of its batch with k times that, since each takes the last one's value for the minimum.

    A channel's weight is then its place in the batch times its head weight, whatever it showed. The paper sets the
    channel to zero, and so do captum and we.
    """
    net, one = seeded(Soft), inputs(1)
    target = int(net(one)[0].argmax())
    theirs = from_grad_cam(AblationCAM, net, "features", one, target)
    A, _ = state(net, "features", one, target)
    places = torch.arange(1, 9)
    same_sign(theirs, torch.einsum("c,chw->hw", places * net.head.weight[target], A).numpy())

    _, mine = ours(prove(net, inputs(8), CLASSES, None), "ablationcam", "features", one, target)
    same_sign(mine, captum_ablation(net, "features", one, target))
    assert np.abs(by_size(mine) - by_size(theirs)).max() > 0.1


def test_a_negative_score_turns_pytorch_grad_cams_ablationcam_around(steep):
    """It divides the fall by the score, as the paper writes; below zero that shows what speaks against the class."""
    one, net = pictures(1), steep.network
    target = int(net(one)[0].argmin())
    assert net(one)[0, target] < 0
    _, mine = ours(steep, "ablationcam", "layer3", one, target)
    same_sign(mine, -from_grad_cam(AblationCAM, net, "layer3", one, target))


def test_captums_guided_gradcam_is_made_of_blocks_unless_told_otherwise(plain):
    """It enlarges Grad-CAM by the nearest cell; its own description says that the paper takes bilinear."""
    one = pictures(1)
    target, cam = ours(plain, "gradcam", "layer3", one)
    _, guided = ours(plain, "guided_backprop", "input", one, target)
    blocks = F.interpolate(torch.from_numpy(cam).clamp(min=0)[None, None], (SIDE, SIDE), mode="nearest")[0, 0]
    theirs = captum_guided_cam(plain.network, "layer3", one, target)
    same_sign(theirs, guided * blocks.numpy())
    _, mine = ours(plain, "guided_gradcam", "layer3", one, target)
    assert np.abs(by_size(mine) - by_size(theirs)).max() > 0.1


def test_pytorch_grad_cam_leaves_the_sign_of_a_principal_direction_to_chance():
    """It shows what is above zero, so with the other sign its map is of the other places. Ours follows the sum."""
    arrays = np.random.default_rng(0).random((20, 6, 4, 4)).astype(np.float32)
    sums = arrays.sum(1) - arrays.sum(1).mean((1, 2), keepdims=True)
    theirs = np.sign((get_2d_projection(arrays) * sums).sum((1, 2)))
    assert set(theirs) == {-1, 1}
    assert ((principal(torch.from_numpy(arrays)).numpy() * sums).sum((1, 2)) > 0).all()
