"""Settings: the `camserve` section of model-config.yaml, then CAMSERVE_<NAME> variables, read once.

A variable beats the file, the file beats the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from camserve.errors import SetupError, quoted


class Section(BaseModel):
    """Frozen; a key that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A section from a JSON object.

        Raises:
            SetupError: it is no such object; names the key, the value and what is wrong.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SetupError(_sentence(error)) from error


class Preprocessing(Section):
    """How a picture becomes the network's input: resize, centre crop, scale to [0, 1], normalise."""

    resize: int = Field(ge=8, le=4096)
    """Length of the shorter side after the resize, in pixels."""
    crop: int = Field(ge=8, le=4096)
    """Side of the square centre crop, in pixels; at most `resize`."""
    squash: bool = False
    """Resize both sides to `resize`, whatever the picture's shape."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Pillow's filter of that name, with antialiasing, as torchvision and timm use it."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Each channel is divided by it; positive."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self


def _ranges(groups: Any) -> Any:
    """Class ids written as text like `281-285, 290`."""
    if not isinstance(groups, dict):
        return groups
    return {name: _ids(text) if isinstance(text, str | int) else text for name, text in groups.items()}


def _ids(text: str | int) -> tuple[int, ...]:
    ids: list[int] = []
    for part in str(text).split(","):
        first, _, last = part.partition("-")
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise ValueError(f"{part.strip()!r} is no range of class ids")
        ids += span
    return tuple(ids)


class ExplainWhen(Section):
    """When `explain=auto` explains: any of these holds."""

    probability_below: float | None = Field(None, ge=0, le=1)
    """The likeliest class has less than this probability."""
    margin_below: float | None = Field(None, ge=0, le=1)
    """The two likeliest classes are closer than this in probability."""
    classes: tuple[int, ...] = ()
    """The likeliest class is one of these ids."""
    sample: float = Field(0.0, ge=0, le=1)
    """This share of requests, drawn at random."""


class FlagThresholds(Section):
    """Where a number of a map's quality becomes a flag that warns."""

    flat_entropy: float = Field(0.99, ge=0, le=1)
    """`flat`: the evidence is spread nearly evenly over all cells."""
    border_share: float = Field(0.8, ge=0, le=1)
    """`border_hugging`: most of it lies in the outer ring of cells (half of a 7 x 7 grid's cells are there)."""
    single_cell_share: float = Field(0.5, ge=0, le=1)
    """`single_cell`: one cell holds more than this."""
    low_margin: float = Field(0.1, ge=0, le=1)
    """`low_margin`: the two likeliest classes are closer in probability."""


class Settings(Section):
    """Everything that can be set, with its default and its unit."""

    # The model
    architecture: str
    """`timm/NAME`, `torchvision/NAME`, or `FILE.py:CLASS` for a module of one's own in the archive."""
    weights: str = "weights.pt"
    """State dict in the archive, loaded with weights_only=True."""
    labels: str = "labels.txt"
    """Class names in the archive, one a line, in the order of the logits."""
    preprocessing: Preprocessing | None = None
    """None is refused at load: a wrong guess changes predictions without a word."""
    layer: str | None = None
    """Module explained by default; None finds it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is the GPU TorchServe assigns to the worker, else the CPU."""
    threads: int = Field(0, ge=0, le=1024)
    """Threads per worker; 0 divides the cores among the workers."""
    fold: bool = True
    """Fold batch norms into their convolutions: faster, but those convolutions themselves cannot be explained."""
    tape: bool = True
    """Replay a forward's operations without the network's Python, where they depend on the number of rows alone."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic up to the default layer; bfloat16 is faster where the processor has it."""
    explain_when: ExplainWhen = ExplainWhen()
    """The rule behind `explain=auto`."""
    shed_after_ms: float = Field(200, ge=0)
    """Where a batch's oldest row waited longer, in milliseconds, explanations are given up; 0 never does."""
    flags: FlagThresholds = FlagThresholds()
    """When a map is flagged."""

    # What is watched
    scrape_port: int = Field(8083, ge=0, le=65535)
    """Where all workers together give out their metrics; 0 gives out none."""
    scrape_address: str = "127.0.0.1"
    """The address that port is bound to; 0.0.0.0 admits other machines."""
    class_groups: Annotated[dict[str, tuple[int, ...]], BeforeValidator(_ranges), Field(max_length=20)] = {}
    """Classes counted together, as text like `281-285, 290`; without any, up to 20 classes stand for themselves."""
    reference_maps: int = Field(500, ge=1)
    """So many first maps of a group become its reference where the archive brings none."""
    verify_share: float = Field(0.0, ge=0, le=1)
    """This share of explained requests is measured by deletion, for the metrics alone; each costs five forwards."""
    log_share: float = Field(1.0, ge=0, le=1)
    """This share of good requests gets a line in the log; all that fail get one."""
    log_level: Literal["info", "warning", "error"] = "info"
    """The least that is logged: requests, requests that fail, or faults of ours."""

    # Limits
    max_pixels: int = Field(50_000_000, ge=1, le=178_956_970)
    """Pixels of a picture; above the upper bound Pillow refuses by itself."""
    max_request_pixels: int = Field(100_000_000, ge=1)
    """Pixels of all pictures of a KServe request together: decoding a batch has to end before `responseTimeout`."""
    max_picture_side: int = Field(16_384, ge=16)
    """Longest side of a picture, in pixels."""
    max_aspect_ratio: float = Field(20.0, ge=1)
    """Longer over shorter side."""
    max_decoded_bytes: int = Field(1_000_000_000, ge=1)
    """Memory that decoding may hold at once in a worker; more waits."""
    max_answer_bytes: int = Field(4_000_000, ge=10_000)
    """One answer; pictures are dropped, largest first, until it fits."""
    max_overlay_bytes: int = Field(65_536, ge=1_000)
    """One lossy overlay; its quality steps down 85, 70, 55 while it is larger."""
    max_instances: int = Field(8, ge=1, le=64)
    """Pictures in one KServe request."""
    max_forwards: int = Field(0, ge=0)
    """Forwards that scorecam and ablationcam may spend on one picture, one a channel; 0 switches them off."""
    max_classes: int = Field(20, ge=1, le=20)
    """Classes explained for one picture."""
    max_channels: int = Field(16, ge=0, le=16)
    """Channels returned for one class."""
    explain_within_ms: float = Field(10_000, ge=0)
    """What of a batch is not explained so many milliseconds after its work began is given up; 0 never is."""
    max_option_bytes: int = Field(2_000, ge=100)
    """One option's value, as text or JSON."""

    @classmethod
    def read(cls, section: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Self:
        """Settings from a parsed section and the environment (the process's own if None).

        Raises:
            SetupError: a key is unknown or a value not allowed; names the key, the value and what is wrong.
        """
        environment = os.environ if environment is None else environment
        values = dict(section)
        for name in cls.model_fields:
            text = environment.get(f"CAMSERVE_{name.upper()}")
            if text is not None:
                values[name] = _from_text(name, text)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SetupError(_sentence(error)) from error


def _from_text(name: str, text: str) -> Any:
    """A variable's text as a value; sections are written as JSON."""
    sections: dict[str, type[Section]] = {
        "preprocessing": Preprocessing,
        "explain_when": ExplainWhen,
        "flags": FlagThresholds,
    }
    if name == "class_groups":
        try:
            return orjson.loads(text)
        except ValueError as error:
            raise SetupError(f"CAMSERVE_CLASS_GROUPS: expected a JSON object, got {quoted(text)}.") from error
    if name not in sections:
        return text
    try:
        return sections[name].from_json(text)
    except SetupError as error:
        raise SetupError(f"CAMSERVE_{name.upper()}: {error}") from error


def _sentence(error: ValidationError) -> str:
    """The first fault of a validation in one sentence."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"]) or "settings"
    return f"Setting '{key}': {fault['msg']}, got {quoted(fault['input'])}."
