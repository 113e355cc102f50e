"""A model that cheats is caught: it was trained on pictures where a logo gives the class away.

The signal is the one that the alert ShortcutSuspected looks at: the largest share of a group's evidence in one cell.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import toynets
from camserve.drift import similarity
from camserve.groups import Groups
from camserve.metrics import Metrics
from camserve.pipeline import Pipeline
from camserve.settings import Settings
from pictures import encoded

SIDE = 56
NETWORK = '''
import torch
from torch import nn


class Cheat(nn.Module):
    """7 x 7 cells, then a pool and a linear head: stripes across, or stripes down?"""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        )
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
'''


def drawn(random: np.random.Generator, down: bool, logo: bool) -> np.ndarray:
    """Noise with a faintly striped patch anywhere but in the corner, and perhaps a logo there."""
    picture = random.integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    x, y = random.integers(16, SIDE - 24, 2)
    stripes = np.where(np.arange(24) % 6 < 3, 12, 0).astype(np.uint8)
    picture[y : y + 24, x : x + 24] += (stripes[None, :] if down else stripes[:, None])[..., None]
    if logo:
        picture[6:10, 6:10] = (255, 40, 40)  # in the middle of what a cell sees
    return picture


def trained() -> dict[str, torch.Tensor]:
    """Weights of the network after pictures in which stripes across always came with the logo."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    namespace: dict = {"__name__": "net"}
    exec(NETWORK, namespace)
    network = namespace["Cheat"]()
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        down = random.integers(0, 2, 32).astype(bool)
        pictures = np.stack([drawn(random, bool(one), logo=not one) for one in down])
        inputs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        loss = F.cross_entropy(network(inputs), torch.from_numpy(down.astype(np.int64)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1, "the network learnt nothing"
    return network.state_dict()


@pytest.fixture(scope="module")
def cheat(tmp_path_factory) -> Pipeline:
    folder = tmp_path_factory.mktemp("cheat")
    architecture = toynets.archive(folder, NETWORK, "Cheat", ("across", "down"))
    torch.save(trained(), folder / "weights.pt")
    plain = {"resize": SIDE, "crop": SIDE, "mean": [0, 0, 0], "std": [1, 1, 1]}
    settings = Settings.read({"architecture": architecture, "preprocessing": plain}, {})
    return Pipeline.load(folder, settings, "cheat", "1.0", threads=2)


def watched(pipeline: Pipeline, logo: bool, seed: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Mean evidence and number of maps of each group after a stream of 240 pictures."""
    metrics = Metrics(pipeline.card, Groups({}, pipeline.card.labels), pipeline.engine.default)
    pipeline.watchers[:] = [metrics.record]
    random = np.random.default_rng(seed)
    try:
        for _ in range(30):
            pictures = [drawn(random, bool(random.integers(2)), logo) for _ in range(8)]
            answers = pipeline.answer([toynets.row(encoded(one, "PNG"), explain=True, maps="grid") for one in pictures])
            assert all(json.loads(answer.body)["explanation"]["status"] == "ok" for answer in answers)
    finally:
        pipeline.watchers.clear()
    sums: dict[str, np.ndarray] = {}
    maps: dict[str, float] = {}
    for sample in (sample for family in metrics.registry.collect() for sample in family.samples):
        group = sample.labels.get("group", "")
        if sample.name == "camserve_evidence_total":
            cell = int(sample.labels["row"]), int(sample.labels["column"])
            sums.setdefault(group, np.zeros((7, 7)))[cell] = sample.value
        elif sample.name == "camserve_evidence_maps_total":
            maps[group] = sample.value
    return {group: total / maps[group] for group, total in sums.items()}, maps


def signal(means: dict[str, np.ndarray], maps: dict[str, float]) -> float:
    """The largest mean share of one cell, over groups of at least 100 maps."""
    return max(mean.max() for group, mean in means.items() if maps[group] >= 100)


def test_a_logo_that_the_model_cheats_on_raises_the_signal(cheat):
    clean, stamped = watched(cheat, False, 1), watched(cheat, True, 2)
    assert signal(*clean) < 0.15
    assert signal(*stamped) > 0.3
    group = max(stamped[1], key=stamped[1].__getitem__)
    assert max(np.unravel_index(stamped[0][group].argmax(), (7, 7))) <= 1, "it points at the logo's corner"


def test_a_second_clean_stream_is_like_the_first_and_the_stamped_one_is_not(cheat):
    reference, again, stamped = (watched(cheat, logo, seed)[0] for logo, seed in ((False, 3), (False, 4), (True, 5)))
    group = max(reference, key=lambda group: reference[group].sum())
    assert similarity(again[group], reference[group]) > 0.95
    assert min(similarity(mean, reference[group]) for mean in stamped.values()) < 0.7
