"""The whole evaluation in one place: pictures and subjects in, a report out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from camserve.errors import SetupError
from camserve.evaluate.report import write
from camserve.evaluate.sample import read
from camserve.evaluate.stages import measure
from camserve.evaluate.subjects import chosen
from camserve.pipeline import Pipeline


def evaluate(
    pipeline: Pipeline,
    folder: Path,
    output: Path,
    methods: Sequence[str] = (),
    layers: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Compare methods and layers of a model on a folder of pictures.

    Args:
        pipeline: the loaded model.
        folder: pictures, and maybe `labels.csv` with the columns file and class_id.
        output: where report.md, its plots, sheet.png and results.json go; made if it is not there.
        methods: names of methods; empty for all that the model and its settings allow.
        layers: names of layers; empty for the default layer.
        seed: of everything random.

    Returns:
        The path of the report.

    Raises:
        SetupError: a method, a layer or `labels.csv` is wrong, or fewer than 10 pictures count.
    """
    if seed < 0:
        raise SetupError(f"Expected a seed of 0 or more, got {seed}.")
    subjects = chosen(pipeline, methods, layers)
    sample = read(pipeline, folder)
    return write(measure(pipeline, sample, subjects, seed), output)
