"""The report's plots: mosaic energy with its intervals, and the curves of deletion and insertion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from camserve.evaluate.mosaic import CHANCE
from camserve.evaluate.study import Measured, Study
from camserve.evaluate.subjects import Subject, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 100
_METHOD, _CONTROL, _INK = "#3b6ea5", "#b0b4b8", "#444444"
_LINES = [f"C{number}" for number in range(10) if number != 7]
"""Matplotlib's colours without grey, which is the controls'."""

_STYLES = {"random": "--", "centre": ":"}


def draw(study: Study, ranking: Sequence[Measured], output: Path) -> list[Path]:
    """Write the plots, as far as there is something to show; returns their paths."""
    plots = {"curves.png": _curves(study, ranking)}
    if study.mosaics:
        plots = {"mosaic.png": _bars(study, ranking), **plots}
    for name, figure in plots.items():
        figure.savefig(output / name, dpi=_DOTS_PER_INCH)
    return [output / name for name in plots]


def short(subject: Subject, layers: bool) -> str:
    """A subject's name, with its layer where there are several."""
    return f"{subject.method} {place(subject)}" if layers and subject.layer else subject.method


def several_layers(study: Study) -> bool:
    """Whether more than one layer is compared, and so must be named."""
    return len({one.first.layer for one in study.methods if one.first.layer != "input"}) > 1


def _figure(width: float, height: float) -> Figure:
    """A figure on the Agg canvas, which needs no display; matplotlib is loaded here and nowhere else."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bars(study: Study, ranking: Sequence[Measured]) -> Figure:
    """Mosaic energy, best at the top."""
    figure = _figure(7, 1.2 + 0.32 * len(ranking))
    axes = figure.subplots()
    found = [study.estimate(one, "energy") for one in ranking]
    means = np.array([one.mean for one in found])
    around = np.abs(np.array([[one.low for one in found], [one.high for one in found]]) - means)
    colours = [_CONTROL if one.first.control else _METHOD for one in ranking]
    axes.barh(range(len(ranking)), means, xerr=around, color=colours, ecolor=_INK, capsize=3)
    axes.axvline(CHANCE, color=_INK, linestyle=":", label="chance")
    layers = several_layers(study)
    axes.set_yticks(range(len(ranking)), [short(one.first, layers) for one in ranking])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("mosaic energy, mean and 95 % interval")
    axes.legend(frameon=False, loc="lower right")
    _plain(axes)
    return figure


def _curves(study: Study, ranking: Sequence[Measured]) -> Figure:
    """Mean probability of the class over the share of cells, for deletion and insertion."""
    figure = _figure(10, 4.4)
    left, right = figure.subplots(1, 2, sharey=True)
    layers = several_layers(study)
    styles = ("-", "--", "-.")
    for number, one in enumerate(ranking):
        shares = one.curves[0].shares
        colour = _CONTROL if one.first.control else _LINES[number % len(_LINES)]
        style = _STYLES.get(one.first.method, styles[number // len(_LINES) % len(styles)])
        for axes, name in ((left, "deletion"), (right, "insertion")):
            mean = np.mean([getattr(curve, name) for curve in one.curves], 0)
            axes.plot(shares, mean, style, color=colour, label=short(one.first, layers))
    left.set_ylabel("mean probability of the class")
    left.set_ylim(bottom=0)
    left.set_xlabel("deletion: share of cells blurred, best first")
    right.set_xlabel("insertion: share of cells shown, best first")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    for axes in (left, right):
        _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
