"""Classes in groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import toynets
from camserve.archive import Recipe, opened
from camserve.errors import SetupError
from camserve.groups import Groups
from camserve.model import embedded
from camserve.settings import Preprocessing, Settings

CONFIG = Path(__file__).resolve().parents[1] / "config" / "model-config.yaml"


def test_a_class_has_its_group_or_is_other():
    groups = Groups({"cats": (1, 2)}, ["a"] * 1000)
    assert [groups.of(class_id) for class_id in (1, 2, 3)] == ["cats", "cats", "other"]


@pytest.mark.parametrize(("count", "group"), [(20, "class 3"), (21, "other")])
def test_few_classes_stand_for_themselves(count, group):
    assert Groups({}, [f"class {n}" for n in range(count)]).of(3) == group


def test_groups_are_written_as_ranges():
    settings = Settings.read({"architecture": "timm/x", "class_groups": {"cats": "281-283, 290", "one": 7}}, {})
    assert settings.class_groups == {"cats": (281, 282, 283, 290), "one": (7,)}


def test_groups_from_the_environment():
    variable = {"CAMSERVE_CLASS_GROUPS": '{"cats": "1-2"}'}
    assert Settings.read({"architecture": "timm/x"}, variable).class_groups == {"cats": (1, 2)}


@pytest.mark.parametrize(
    ("name", "group"), [("tench", "fish"), ("Egyptian cat", "cats"), ("espresso", "food and drink")]
)
def test_a_model_with_imagenets_labels_has_its_groups(name, group):
    with opened(Recipe("c", embedded.ARCHITECTURE)) as pipeline:
        assert Groups(pipeline.settings.class_groups, pipeline.card.labels).of(pipeline.labels.find(name)) == group


def test_a_model_with_labels_of_its_own_has_none_of_imagenets_groups(tmp_path):
    architecture = toynets.archive(tmp_path, toynets.SEEDED, "Seeded", toynets.LABELS)
    labels, preprocessing = tmp_path / "labels.txt", Preprocessing(**toynets.PLAIN)
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["camserve"]
    recipe = Recipe("c", str(tmp_path / architecture), "none", labels, preprocessing, settings=settings)
    with opened(recipe) as pipeline:
        assert Groups(pipeline.settings.class_groups, pipeline.card.labels).of(0) == toynets.LABELS[0]


@pytest.mark.parametrize("groups", [{"cats": "one"}, {"cats": "1-x"}, ["1"], {str(n): "1" for n in range(21)}])
def test_what_is_no_group_is_refused(groups):
    with pytest.raises(SetupError, match=r"^Setting 'class_groups"):
        Settings.read({"architecture": "timm/x", "class_groups": groups}, {})
