"""Draws the dashboard with what a running Prometheus answers, without Grafana.

For instance `python config/grafana/picture.py http://localhost:9090 docs/pictures/dashboard.png --minutes 60`. Of the
class groups that have rows of their own the one with the most maps is drawn.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import requests
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from PIL import Image

DASHBOARD = Path(__file__).parent / "dashboards" / "camserve.json"
COLUMN, LINE, DPI, GAP = 48, 22, 100, 4
"""Pixels: one of the grid's 24 columns, one of its lines, an inch, half the space between panels."""
POINTS, COLOURS, TIMEOUT = 90, 56, 10
INK, PALE, EDGE, GROUND = "#24292f", "#7d858d", "#d9dce0", "#ffffff"
LINES = ("#3274d9", "#56a64b", "#e0803a", "#a352cc", "#37a2b8", "#e02f44", "#b8900b", "#7a7f87", "#d683ce")
NAMED = {"text": INK, "green": "#37872d", "yellow": "#d9a400", "red": "#e02f44"}
MAPS = {"continuous-YlRd": "YlOrRd", "continuous-BlYlRd": "RdYlBu_r"}
LETTERS = {"font.size": 7.5, "font.family": "DejaVu Sans", "text.color": INK, "axes.edgecolor": EDGE}
LETTERS |= {"xtick.color": PALE, "ytick.color": PALE, "axes.labelcolor": PALE}

Series = tuple[dict[str, str], np.ndarray]


class Source:
    """A Prometheus, asked what the dashboard asks, for some minutes until now."""

    def __init__(self, url: str, minutes: float) -> None:
        self.url = f"{url.rstrip('/')}/api/v1/"
        now = time.time()
        self.times = np.linspace(now - 60 * minutes, now, POINTS)
        self.chosen = {"__rate_interval": "1m", "version": ".+", "group": ".+"}
        self.chosen["model"] = self.first("camserve_model_info", "model")

    def get(self, path: str, **asked: object) -> list[dict[str, Any]]:
        """The series of an answer."""
        answer = requests.get(self.url + path, params=asked, timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.json()["data"]["result"]

    def first(self, expr: str, label: str) -> str:
        """A label of the first series there is."""
        found = self.get("query", query=expr, time=self.times[-1])
        return found[0]["metric"].get(label, "") if found else ""

    def filled(self, text: str) -> str:
        """A text with the choices made."""
        return re.sub(r"\$(\w+)", lambda found: self.chosen[found[1]], text)

    def now(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values of what is true now."""
        found = self.get("query", query=self.filled(expr), time=self.times[-1])
        return [(series["metric"], float(series["value"][1])) for series in found]

    def lines(self, expr: str) -> list[Series]:
        """Labels and values over time, not a number where there is none."""
        start, end = self.times[[0, -1]]
        step = (end - start) / (POINTS - 1)
        found = self.get("query_range", query=self.filled(expr), start=start, end=end, step=step)
        lines = []
        for series in found:
            values = np.full(POINTS, np.nan)
            for at, value in series["values"]:
                values[min(round((at - start) / step), POINTS - 1)] = float(value)
            if np.isfinite(values).any():
                lines.append((series["metric"], np.where(np.isfinite(values), values, np.nan)))
        return lines


def shown(value: float, unit: str) -> str:
    """A value in its unit."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{value:.3g} s" if abs(value) >= 1 or not value else f"{1000 * value:.3g} ms"
    base, ending = (1024, {"bytes": "B"}.get(unit, "")) if unit == "bytes" else (1000, "")
    ending = {"reqps": "/s", "ops": "/s"}.get(unit, ending)
    power = max(0, min(3, int(np.log(max(abs(value), 1)) / np.log(base) + 1e-9)))
    prefix = ("", "Ki", "Mi", "Gi")[power] if unit == "bytes" else ("", "k", "M", "G")[power]
    return f"{value / base**power:.3g} {prefix}{ending}".rstrip()


def told(target: dict[str, Any], labels: dict[str, str]) -> str:
    """The name of a line."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), target["legendFormat"]).strip()


def empty(axes: Axes, text: str = "no data") -> None:
    """A panel without anything in it."""
    axes.axis("off")
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=PALE, fontsize=9)


def over_time(axes: Axes, source: Source, unit: str) -> None:
    """Time below, in whole minutes, and the unit at the left."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    start, end = source.times[[0, -1]]
    step = next(step for step in (60, 300, 900, 1800, 3600, 14400, 86400) if end - start <= 5 * step)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: time.strftime("%H:%M", time.gmtime(at))))
    axes.set_xlim(start, end)
    axes.tick_params(length=0, labelsize=6.5)
    axes.spines[["top", "right", "left"]].set_visible(False)


def timeseries(axes: Axes, panel: dict[str, Any], source: Source) -> None:
    """Lines, or areas on top of each other; dashed where an alert looks."""
    defaults = panel["fieldConfig"]["defaults"]
    targets = panel["targets"]
    named = [(told(target, labels), values) for target in targets for labels, values in source.lines(target["expr"])]
    if not named:
        return empty(axes)
    mode = defaults["custom"].get("stacking", {}).get("mode", "none")
    values = np.array([values for _, values in named])
    if mode != "none":
        values = np.nan_to_num(values)
    if mode == "percent":
        values = values / np.where(values.any(axis=0), values.sum(axis=0), 1)
    over_time(axes, source, "percentunit" if mode == "percent" else defaults["unit"])
    axes.grid(axis="y", color=EDGE, linewidth=0.6)
    axes.set_axisbelow(True)
    if mode == "none":
        for line, colour in zip(values, LINES * 9, strict=False):
            axes.plot(source.times, line, color=colour, linewidth=1.3)
    else:
        axes.stackplot(source.times, values, colors=LINES, alpha=0.75, linewidth=0)
        values = values.sum(axis=0)
    limits(axes, defaults, 1 if mode == "percent" else 1.06 * np.nanmax(values))
    return legend(axes, [name for name, _ in named])


def limits(axes: Axes, defaults: dict[str, Any], top: float) -> None:
    """What stands at the left, from zero; and where an alert looks."""
    steps = defaults.get("thresholds", {}).get("steps", [])[1:]
    for step in steps:
        axes.axhline(step["value"], color=NAMED[step["color"]], linestyle=(0, (4, 3)), linewidth=1)
    top = max(top, *(1.06 * step["value"] for step in steps), 1.02 * defaults.get("max", 0)) or 1
    axes.set_ylim(0, top)
    if defaults["unit"] == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2 ** round(np.log2(top / 4))))


def legend(axes: Axes, names: list[str]) -> None:
    """The names below the lines, in as many columns as fit."""
    width, height = axes.bbox.width, axes.bbox.height
    columns = max(1, min(len(names), int((width + 20) / (24 + 5.2 * max(map(len, names))))))
    rows = -(-len(names) // columns)
    box = axes.get_position()
    rise = box.height * 14 * (rows - 1) / height
    axes.set_position((box.x0, box.y0 + rise, box.width, box.height - rise))
    axes.legend(
        [*axes.collections, *axes.lines][: len(names)], names, loc="upper left", ncols=columns, frameon=False,
        bbox_to_anchor=(-0.02, -17 / axes.bbox.height), fontsize=7, handlelength=0.9, handletextpad=0.4,
        columnspacing=1.0, labelspacing=0.25, borderpad=0, labelcolor=INK,
    )  # fmt: skip


def heatmap(axes: Axes, panel: dict[str, Any], source: Source) -> None:
    """The buckets of a histogram, darker where there is more."""
    found = sorted(source.lines(panel["targets"][0]["expr"]), key=lambda series: float(series[0]["le"]))
    if not found:
        return empty(axes)
    counts = np.diff([np.zeros(POINTS), *(np.nan_to_num(values) for _, values in found)], axis=0)
    used = np.flatnonzero(counts.max(axis=1) > 0)
    low, high = (used[0], used[-1] + 1) if len(used) else (0, len(found))
    over_time(axes, source, "none")
    axes.pcolormesh(
        source.times, np.arange(low, high) + 0.5, np.ma.masked_less(counts[low:high], 0.01) ** 0.5, cmap="Blues", vmin=0
    )
    bounds = [float(labels["le"]) for labels, _ in found]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_yticks(
        range(low + 1, high + 1), ["more" if np.isinf(bound) else shown(bound, unit) for bound in bounds[low:high]]
    )
    return None


def stat(axes: Axes, panel: dict[str, Any], source: Source) -> None:
    """The latest values, large."""
    defaults = panel["fieldConfig"]["defaults"]
    found = [(told(target, {}), value) for target in panel["targets"] for _, value in source.now(target["expr"])]
    if not found:
        return empty(axes)
    axes.axis("off")
    for number, (name, value) in enumerate(found):
        at = (number + 0.5) / len(found)
        passed = [step["color"] for step in defaults["thresholds"]["steps"] if value >= (step["value"] or -np.inf)]
        axes.text(
            at, 0.6, shown(value, defaults["unit"]), color=NAMED[passed[-1]], fontsize=16, ha="center", va="center"
        )
        axes.text(at, 0.22, name, color=PALE, ha="center", va="center")
    return None


def merged(found: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Rows with the same version are one."""
    rows: dict[str, dict[str, str]] = {}
    for number, labels in enumerate(found):
        rows.setdefault(labels.get("version", str(number)), {}).update(labels)
    return list(rows.values())


def table(axes: Axes, panel: dict[str, Any], source: Source) -> None:
    """Names and values of labels; seven by seven cells where they have a row and a column."""
    found = [series for target in panel["targets"] for series in source.now(target["expr"])]
    if not found:
        return empty(axes, panel["fieldConfig"]["defaults"].get("noValue", "no data"))
    if "row" in found[0][0]:
        return cells(axes, panel["fieldConfig"]["defaults"], found)
    rows = merged(labels for labels, _ in found)
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    widths = [max(len(name), *(len(row.get(name, "")) for row in rows)) + 3 for name in names]
    axes.axis("off")
    for name, left in zip(names, np.cumsum([0, *widths]) / sum(widths), strict=False):
        axes.text(left, 0.85, name, color=PALE, fontsize=6)
        for number, row in enumerate(rows[:5]):
            axes.text(left, 0.6 - 0.2 * number, row.get(name, ""), fontsize=6)
    return None


def cells(axes: Axes, defaults: dict[str, Any], found: list[tuple[dict[str, str], float]]) -> None:
    """The cells as they lie in the picture."""
    side = 1 + max(int(labels["row"]) for labels, _ in found)
    values = np.full((side, side), np.nan)
    for labels, value in found:
        values[int(labels["row"]), int(labels["column"])] = value
    axes.imshow(values, MAPS[defaults["color"]["mode"]], vmin=defaults["min"], vmax=defaults["max"], aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{round(100 * value, 1) + 0:.1f} %", ha="center", va="center", fontsize=6.5)
    axes.axis("off")


DRAWN = {"timeseries": timeseries, "heatmap": heatmap, "stat": stat, "table": table}
MARGINS = {"timeseries": (46, 10, 28, 38), "heatmap": (58, 10, 28, 22)}
"""Pixels at the left, right, top (under the title) and bottom of what is drawn."""


def placed(figure: Figure, at: dict[str, int], margins: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Axes:
    """Axes in a panel's place."""
    width, height = figure.get_size_inches() * DPI
    left, right, top, bottom = margins
    x, y = at["x"] * COLUMN + GAP + left, height - (at["y"] + at["h"]) * LINE + GAP + bottom
    w, h = at["w"] * COLUMN - 2 * GAP - left - right, at["h"] * LINE - 2 * GAP - top - bottom
    return figure.add_axes((x / width, y / height, w / width, h / height))


def draw(figure: Figure, panel: dict[str, Any], source: Source) -> None:
    """A panel with its title, or the heading of a row."""
    back = placed(figure, panel["gridPos"])
    back.set(xticks=[], yticks=[])
    title = {"x": 10 / back.bbox.width, "ha": "left", "weight": "bold", "transform": back.transAxes}
    if panel["type"] == "row":
        if panel.get("repeat"):
            most = f"topk(1, sum by ({panel['repeat']}) (camserve_evidence_maps_total))"
            source.chosen[panel["repeat"]] = source.first(most, panel["repeat"])
        back.axis("off")
        back.text(s=source.filled(panel["title"]), y=0.5, va="center", fontsize=9.5, **title | {"x": 0.002})
        return
    back.text(s=panel["title"], y=1 - 8 / back.bbox.height, va="top", fontsize=8, **title)
    axes = placed(figure, panel["gridPos"], MARGINS.get(panel["type"], (10, 10, 28, 8)))
    axes.set_facecolor("white")
    DRAWN[panel["type"]](axes, panel, source)


def picture(source: Source) -> Image.Image:
    """The whole dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    with plt.rc_context(LETTERS):
        figure = plt.figure(figsize=(24 * COLUMN / DPI, lines * LINE / DPI), dpi=DPI, facecolor=GROUND)
        for panel in panels:
            draw(figure, panel, source)
        file = io.BytesIO()
        figure.savefig(file, format="png", facecolor=GROUND)
        plt.close(figure)
    return (
        Image.open(file)
        .convert("RGB")
        .quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    )


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("prometheus", help="its address, such as http://localhost:9090")
    parser.add_argument("file", type=Path, help="where the picture goes, a PNG")
    parser.add_argument("--minutes", type=float, default=180, help="how far back it looks (default: 180)")
    asked = parser.parse_args()
    picture(Source(asked.prometheus, asked.minutes)).save(asked.file, optimize=True)


if __name__ == "__main__":
    main()
