"""A network of a user's own, packed by the command line; its labels are as hostile as labels can be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hostile_network import Tiny
from service import CONFIG, Service, serving

pytestmark = pytest.mark.live

LABELS = ["<script>alert(1)</script>", 'quote " \\ \t \x00 \x1b[31m %s', "猫🐈" * 500]
PREPROCESSING = '{"resize": 36, "crop": 32, "interpolation": "bilinear"}'


def archive(folder: Path, *more: str, model: str = "", weights: str = "") -> subprocess.CompletedProcess[str]:
    """Run `camserve archive` for the tiny network."""
    torch.manual_seed(0)
    torch.save(Tiny().state_dict(), folder / "tiny.pt")
    (folder / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "camserve.cli", "archive", "--name", "tiny", "--version", "2.1"),
        *("--model", model or f"{Path(__file__).with_name('hostile_network.py')}:Tiny"),
        *("--weights", weights or str(folder / "tiny.pt"), "--labels", str(folder / "labels.txt")),
        *("--store", str(folder / "store"), "--config", str(CONFIG / "model-config.yaml"), *more),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    done = archive(folder, "--preprocessing", PREPROCESSING)
    assert done.returncode == 0, done.stderr
    with serving(folder, "tiny") as stack:
        yield Service(stack)


def test_an_own_network_is_explained_exactly(tiny):
    reply = tiny.ask("?explain=true&maps=overlay,grid")
    assert reply.status == 200
    assert reply.json["model"] == {"name": "tiny", "version": "2.1", "architecture": "hostile_network.py:Tiny"}
    explanation = reply.json["explanation"]
    assert (explanation["layer"], explanation["grid_shape"], explanation["exact"]) == ("features", [8, 8], True)
    assert reply.explained["ledger"]["error"] < 1e-4


def test_hostile_labels_come_back_as_they_are(tiny):
    predictions = tiny.ask().json["predictions"]
    assert {p["class_id"]: p["label"] for p in predictions} == dict(enumerate(LABELS))


def test_hostile_labels_can_be_asked_for(tiny):
    reply = tiny.ask("", params={"explain": "true", "classes": LABELS[0].upper()})
    assert reply.explained["class_id"] == 0


def test_topk_and_top_n_are_clamped_to_the_classes(tiny):
    answer = tiny.ask("?explain=true&classes=top:20&topk=20&maps=grid").json
    assert len(answer["predictions"]) == len(answer["explanation"]["classes"]) == 3


def test_a_network_without_declared_preprocessing_is_refused(tmp_path):
    done = archive(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("camserve: The preprocessing is not declared: give resize, crop")
    assert not (tmp_path / "store" / "tiny.mar").exists()


def test_a_pickled_network_is_refused(tmp_path):
    torch.save(Tiny(), tmp_path / "pickled.pt")
    done = archive(tmp_path, "--preprocessing", PREPROCESSING, weights=str(tmp_path / "pickled.pt"))
    assert done.returncode == 1
    assert done.stderr.startswith("camserve: pickled.pt is not a plain state dict")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--preprocessing", "{}"], "camserve: Setting 'resize': Field required"),
        (["--preprocessing", PREPROCESSING, "--layer", "head"], "camserve: The layer 'head' cannot be explained"),
    ],
    ids=["preprocessing", "layer"],
)
def test_wrong_settings_are_one_sentence(tmp_path, more, sentence):
    done = archive(tmp_path, *more)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1


def test_a_library_that_has_no_such_network(tmp_path):
    done = archive(tmp_path, model="torchvision/resnet51")
    assert done.returncode == 1
    assert done.stderr.startswith("camserve: No network 'resnet51' in torchvision")
