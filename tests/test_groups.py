"""Classes in groups."""

from __future__ import annotations

import pytest

from camserve.errors import SetupError
from camserve.groups import Groups
from camserve.settings import Settings


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


@pytest.mark.parametrize("groups", [{"cats": "one"}, {"cats": "1-x"}, ["1"], {str(n): "1" for n in range(21)}])
def test_what_is_no_group_is_refused(groups):
    with pytest.raises(SetupError, match=r"^Setting 'class_groups"):
        Settings.read({"architecture": "timm/x", "class_groups": groups}, {})
