"""Settings: file, then variables; unknown keys and bad values are refused by name."""

from __future__ import annotations

import pytest

from camserve.errors import SetupError
from camserve.settings import ExplainWhen, Preprocessing, Settings

REQUIRED = {"architecture": "torchvision/resnet50"}


def read(section: dict | None = None, **environment: str) -> Settings:
    return Settings.read(REQUIRED | (section or {}), environment)


def test_the_defaults_are_the_documented_limits():
    settings = read()
    assert settings.architecture == "torchvision/resnet50"
    assert settings.preprocessing is None
    assert settings.explain_when == ExplainWhen()
    assert settings.shed_after_ms == 200
    limits = {name: value for name, value in settings.model_dump().items() if name.startswith("max_")}
    assert limits == {
        "max_pixels": 50_000_000,
        "max_request_pixels": 100_000_000,
        "max_picture_side": 16_384,
        "max_aspect_ratio": 20.0,
        "max_decoded_bytes": 1_000_000_000,
        "max_answer_bytes": 4_000_000,
        "max_overlay_bytes": 65_536,
        "max_instances": 8,
        "max_forwards": 0,
        "max_classes": 20,
        "max_channels": 16,
        "max_option_bytes": 2_000,
    }
    assert settings.explain_within_ms == 10_000


def test_a_variable_beats_the_file_and_the_file_beats_the_default():
    settings = read({"max_instances": 3, "threads": 2}, CAMSERVE_MAX_INSTANCES="5")
    assert (settings.max_instances, settings.threads, settings.max_classes) == (5, 2, 20)


def test_sections_come_from_variables_as_json():
    settings = read(
        {"explain_when": {"sample": 0.5}},
        CAMSERVE_EXPLAIN_WHEN='{"margin_below": 0.2, "classes": [3, 4]}',
        CAMSERVE_PREPROCESSING='{"resize": 256, "crop": 224, "interpolation": "bicubic"}',
    )
    assert settings.explain_when == ExplainWhen(margin_below=0.2, classes=(3, 4))
    assert settings.preprocessing == Preprocessing(resize=256, crop=224, interpolation="bicubic")


def test_other_variables_are_not_looked_at():
    assert read(CAMSERVE_UNKNOWN="1", MAX_INSTANCES="2") == read()


def test_the_process_environment_is_read_where_none_is_given(monkeypatch):
    monkeypatch.setenv("CAMSERVE_MAX_INSTANCES", "2")
    assert Settings.read(REQUIRED).max_instances == 2


@pytest.mark.parametrize(
    ("section", "environment", "message"),
    [
        pytest.param(
            {"max_pixel": 3}, {}, "Setting 'max_pixel': Extra inputs are not permitted, got 3.", id="an unknown key"
        ),
        pytest.param(
            {"preprocessing": {"resize": 256, "crop": 224, "size": 1}},
            {},
            "Setting 'preprocessing.size': Extra inputs are not permitted, got 1.",
            id="an unknown key in a section",
        ),
        pytest.param(
            {"max_instances": 0},
            {},
            "Setting 'max_instances': Input should be greater than or equal to 1, got 0.",
            id="too small",
        ),
        pytest.param(
            {"max_instances": 65},
            {},
            "Setting 'max_instances': Input should be less than or equal to 64, got 65.",
            id="too large",
        ),
        pytest.param(
            {},
            {"CAMSERVE_THREADS": "two"},
            "Setting 'threads': Input should be a valid integer, unable to parse string as an integer, got 'two'.",
            id="a variable that is no number",
        ),
        pytest.param(
            {"max_aspect_ratio": float("nan")},
            {},
            "Setting 'max_aspect_ratio': Input should be a finite number, got nan.",
            id="not a number",
        ),
        pytest.param(
            {"device": "tpu"},
            {},
            "Setting 'device': Input should be 'auto', 'cpu' or 'cuda', got 'tpu'.",
            id="an unknown word",
        ),
        pytest.param(
            {"preprocessing": {"resize": 200, "crop": 224}},
            {},
            "Setting 'preprocessing': Value error, crop 224 is larger than resize 200, "
            "got {'resize': 200, 'crop': 224}.",
            id="a crop larger than the picture",
        ),
        pytest.param(
            {"preprocessing": {"resize": 256, "crop": 224, "std": [1, 0, 1]}},
            {},
            "Setting 'preprocessing': Value error, std must be positive, got (1.0, 0.0, 1.0), "
            "got {'resize': 256, 'crop': 224, 'std': [1, 0, 1]}.",
            id="a division by zero",
        ),
        pytest.param(
            {},
            {"CAMSERVE_SHED_AFTER_MS": "-1"},
            "Setting 'shed_after_ms': Input should be greater than or equal to 0, got '-1'.",
            id="a wait below zero",
        ),
        pytest.param(
            {"explain_when": {"sample": 1.5}},
            {},
            "Setting 'explain_when.sample': Input should be less than or equal to 1, got 1.5.",
            id="a share over one",
        ),
    ],
)
def test_refused(section, environment, message):
    with pytest.raises(SetupError) as caught:
        read(section, **environment)
    assert str(caught.value) == message


def test_the_architecture_must_be_given():
    with pytest.raises(SetupError) as caught:
        Settings.read({}, {})
    assert str(caught.value) == "Setting 'architecture': Field required, got {}."


@pytest.mark.parametrize("text", ["", "not JSON", "[1]", "{"], ids=["empty", "words", "a list", "cut short"])
def test_a_section_that_is_no_json_object_is_refused(text):
    with pytest.raises(SetupError, match=r"^CAMSERVE_EXPLAIN_WHEN: Setting 'settings': "):
        read(CAMSERVE_EXPLAIN_WHEN=text)


def test_a_fault_in_a_variables_section_names_the_key():
    with pytest.raises(
        SetupError, match=r"^CAMSERVE_EXPLAIN_WHEN: Setting 'sample': Input should be less than or equal to 1, got 2\.$"
    ):
        read(CAMSERVE_EXPLAIN_WHEN='{"sample": 2}')


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        read().threads = 3
