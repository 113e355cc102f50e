"""A folder to the pictures that count: those whose class the model is sure of."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from camserve.errors import RequestError, SetupError
from camserve.evaluate.predictor import Predictor
from camserve.evaluate.progress import batches, progress
from camserve.imaging.decode import decode, inspect
from camserve.imaging.formats import recognise
from camserve.model.transform import to_input, view
from camserve.pipeline import Pipeline
from camserve.records import Bytes

SURE = 0.3
"""The least probability of its class with which a picture counts: there is little to explain below."""

FEWEST = 10
"""Pictures that must count."""

LABELS = "labels.csv"
_AT_ONCE = 32
_ENDINGS = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class Counted:
    """A picture that counts: what the network sees of it (uint8, S x S x 3), its class and that class's probability."""

    file: str
    view: Bytes
    class_id: int
    probability: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The pictures that count, and of each other file why it does not; `labelled` if labels.csv names the classes."""

    pictures: tuple[Counted, ...]
    left_out: Mapping[str, str]
    labelled: bool


def read(pipeline: Pipeline, folder: Path) -> Sample:
    """The sample in a folder.

    Raises:
        SetupError: no such folder, a wrong labels.csv, or too few pictures that count.
    """
    if not folder.is_dir():
        raise SetupError(f"There is no folder {str(folder)!r}.")
    labels = _labels(folder / LABELS, len(pipeline.labels))
    left_out: dict[str, str] = {}
    counted: list[Counted] = []
    for files in progress(batches(_pictures(folder), _AT_ONCE), "pictures"):
        views = _views(pipeline, files, labels, left_out)
        counted += _sure(pipeline, views, labels, left_out)
    if len(counted) < FEWEST:
        raise SetupError(
            f"Expected at least {FEWEST} pictures whose class the model gives a probability of {SURE} or more; "
            f"{len(counted)} of {len(counted) + len(left_out)} in {str(folder)!r} count."
        )
    return Sample(tuple(counted), left_out, labels is not None)


def tensor(pipeline: Pipeline, views: Sequence[Bytes]) -> Tensor:
    """Views as the network's input, N x 3 x H x W."""
    return to_input(views, pipeline.preprocessing, pipeline.device)


def _pictures(folder: Path) -> list[Path]:
    """The files that are pictures, or say so by their names, in order."""
    return [file for file in sorted(folder.iterdir()) if file.is_file() and _is_picture(file)]


def _is_picture(file: Path) -> bool:
    if file.suffix.lower() in _ENDINGS:
        return True
    try:
        with file.open("rb") as opened:
            recognise(opened.read(16))
    except RequestError:
        return False
    except OSError:
        return True  # it is told of when it is to be read
    return True


def _labels(path: Path, classes: int) -> dict[str, int] | None:
    """Class ids by file name, or None without a labels.csv."""
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            return {row["file"].strip(): _class_id(row["class_id"], classes) for row in csv.DictReader(opened)}
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{LABELS} must be UTF-8 text with the columns file and class_id.") from error


def _class_id(text: str, classes: int) -> int:
    if not (text.strip().isascii() and text.strip().isdigit() and int(text) < classes):
        raise SetupError(f"{LABELS}: expected a class_id from 0 to {classes - 1}, got {ascii(text)[:40]}.")
    return int(text)


def _views(
    pipeline: Pipeline, files: Sequence[Path], labels: Mapping[str, int] | None, left_out: dict[str, str]
) -> dict[str, Bytes]:
    """What the network sees of each file; of one that fails, why."""
    views: dict[str, Bytes] = {}
    for file in files:
        name = file.name.encode(errors="backslashreplace").decode()  # on some disks a name is no text
        if labels is not None and name not in labels:
            left_out[name] = f"{LABELS} does not name it"
            continue
        try:
            views[name] = _view(pipeline, file)
        except (RequestError, OSError) as error:
            left_out[name] = f"it cannot be read: {error}"
    return views


def _view(pipeline: Pipeline, file: Path) -> Bytes:
    header = inspect(file.read_bytes(), pipeline.limits)
    with pipeline.budget.hold(header.memory):
        return view(decode(header), pipeline.preprocessing)[0]


def _sure(
    pipeline: Pipeline, views: Mapping[str, Bytes], labels: Mapping[str, int] | None, left_out: dict[str, str]
) -> Iterator[Counted]:
    """Those whose class is likely enough."""
    if not views:
        return
    inputs = tensor(pipeline, list(views.values()))
    chances = Predictor(pipeline.engine.network, inputs[:1])(inputs)
    for (file, pixels), row in zip(views.items(), chances, strict=True):
        class_id = int(row.argmax()) if labels is None else labels[file]
        chance = float(row[class_id])
        if chance >= SURE:
            yield Counted(file, pixels, class_id, chance)
        else:
            left_out[file] = f"its class has the probability {chance:.2f}, less than {SURE}"
