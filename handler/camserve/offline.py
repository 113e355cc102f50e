"""The service without a server: picture files in, the same answers and their pictures as files out."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from camserve.drift import Shares, usual
from camserve.errors import CamserveError, SetupError
from camserve.groups import Groups
from camserve.imaging.decode import SizeLimits, decode, inspect
from camserve.imaging.encode import ENCODINGS, encode
from camserve.imaging.formats import recognise
from camserve.imaging.resize import fitted
from camserve.imaging.sheet import Tile, sheet
from camserve.pipeline import Pipeline
from camserve.records import Row
from camserve.response import Outcome, Served

BATCH = 8
"""Pictures in one forward."""

References = dict[str, tuple[Shares, int]]
"""Mean evidence and number of maps of each class group."""

_COLUMNS = 4
_ENDINGS = {encoding.mime: encoding.extension for encoding in ENCODINGS.values()}


@dataclass(frozen=True, slots=True)
class Explained:
    """What became of one file: the files written for it and a line that tells the outcome, good or not."""

    file: Path
    line: str
    written: tuple[Path, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the file was answered."""
        return bool(self.written)


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """The files named, and of a folder the pictures in it, by name.

    Raises:
        SetupError: there is no such file, or no picture in a folder.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise SetupError(f"There is no file {str(place)!r}.")
        inside = [file for file in sorted(place.iterdir()) if _is_picture(file)] if place.is_dir() else [place]
        if not inside:
            raise SetupError(f"There is no picture in {str(place)!r}.")
        found += inside
    return found


def explain(pipeline: Pipeline, files: Sequence[Path], options: Mapping[str, str], folder: Path) -> Iterator[Explained]:
    """Answer every file into `folder`, in order: NAME.json as the service would send it, and its pictures.

    Several explained classes also give a sheet that shows them side by side. A file that fails is told of; the
    others go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = list(zip(files, _names(files), strict=True))
    for start in range(0, len(named), BATCH):
        batch = named[start : start + BATCH]
        rows = [_row(file, options) for file, _ in batch]
        for (file, name), row, answer in zip(batch, rows, pipeline.answer(rows), strict=True):
            body = orjson.loads(answer.body)
            if answer.status != 200:
                yield Explained(file, body["message"])
                continue
            written = [_write(folder / f"{name}.json", answer.body)]
            written += [_write(folder / f"{name}-{ending}", data) for ending, data in _drawn(row, body, pipeline)]
            yield Explained(file, _line(body), tuple(written))


def references(pipeline: Pipeline, files: Sequence[Path], groups: Groups, told: Callable[[int], None]) -> References:
    """The mean evidence of each class group over files; `told` hears of every batch. Files that fail do not count."""
    sums: dict[str, Shares] = {}
    maps: Counter[str] = Counter()

    def add(batch: Sequence[Served], seconds: float) -> None:
        outcomes = [one for served in batch for one in served.outcomes if isinstance(one, Outcome)]
        for found in filter(None, (usual(outcome, pipeline.engine.default) for outcome in outcomes)):
            group = groups.of(found[0])
            sums[group] = sums.get(group, 0) + found[1]
            maps[group] += 1
        told(len(batch))

    pipeline.watchers.append(add)
    for start in range(0, len(files), BATCH):
        pipeline.answer([_row(file, {"maps": "grid"}) for file in files[start : start + BATCH]])
    return {group: (shares / maps[group], maps[group]) for group, shares in sums.items()}


def _row(file: Path, options: Mapping[str, str]) -> Row:
    """A file that cannot be read is an empty picture, and told of as one."""
    fields = {name: value.encode() for name, value in options.items()}
    try:
        data = file.read_bytes()
    except OSError:
        data = b""
    return Row(ascii(file.stem)[1:-1], {"data": data, "explain": b"true", **fields}, {})


def _drawn(row: Row, body: Mapping[str, Any], pipeline: Pipeline) -> Iterator[tuple[str, bytes]]:
    """The pictures of an answer by the end of their names."""
    classes = body["explanation"]["classes"]
    for entry in classes:
        for kind in ("overlay", "heatmap"):
            if kind in entry:
                data = base64.b64decode(entry[kind]["data"])
                yield f"{entry['class_id']}-{kind}{_ENDINGS[entry[kind]['mime']]}", data
    if sum("overlay" in entry for entry in classes) > 1:
        yield "sheet.jpg", _sheet(row.fields["data"], body, pipeline.limits)


def _sheet(image: bytes, body: Mapping[str, Any], limits: SizeLimits) -> bytes:
    """The picture, and each class's overlay with its label, probability and share of what speaks for it."""
    chances = {one["class_id"]: one["probability"] for one in body["predictions"]}
    tiles = [Tile(fitted(decode(inspect(image, limits)), 512), "the picture")]
    for entry in body["explanation"]["classes"]:
        if "overlay" in entry:
            chance = chances.get(entry["class_id"])
            caption = entry["label"] if chance is None else f"{entry['label']} {_percent(chance)}"
            overlay = decode(inspect(base64.b64decode(entry["overlay"]["data"]), limits))
            tiles.append(Tile(overlay.pixels, caption))
    explanation = body["explanation"]
    note = f"{body['model']['architecture']}, {explanation['method']} at {explanation['layer']}"
    return encode(sheet(tiles, min(_COLUMNS, len(tiles)), note=note)[:, :, ::-1], "jpeg").data


def _line(body: Mapping[str, Any]) -> str:
    """The predictions in one line, and what was wrong with a map."""
    likely = ", ".join(f"{one['label']} {_percent(one['probability'])}" for one in body["predictions"])
    wrong = [f"{one['label']}: {one['status']}" for one in body["explanation"]["classes"] if one["status"] != "ok"]
    return likely + (f"; {', '.join(wrong)}" if wrong else "")


def _percent(chance: float) -> str:
    return f"{chance:.0%}" if chance >= 0.1 else f"{chance:.1%}"


def _names(files: Sequence[Path]) -> list[str]:
    """File names without endings, numbered where several are the same."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        tries = (file.stem if number == 1 else f"{file.stem}-{number}" for number in count(1))
        name = next(one for one in tries if one.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def _is_picture(file: Path) -> bool:
    """Whether a file begins like a picture we read; one that cannot be read is told of when its turn comes."""
    if not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            recognise(opened.read(16))
    except CamserveError:
        return False
    except OSError:
        return True
    return True


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
