"""The report: what to use first, then how it was measured, what was found, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from camserve.evaluate import examples, plots
from camserve.evaluate.bootstrap import RESAMPLES
from camserve.evaluate.faithfulness import REMOVED, STEPS
from camserve.evaluate.metrics import METRICS
from camserve.evaluate.randomisation import DRAWS, THRESHOLD
from camserve.evaluate.recommendation import best, sentence, shortcomings
from camserve.evaluate.sample import LABELS, SURE
from camserve.evaluate.study import Measured, Study
from camserve.evaluate.subjects import CONTROLS, place
from camserve.evaluate.tables import against_best, against_controls, escaped, number, results

_LITERATURE = (
    "Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016 (pointing game)",
    "Böhle, Fritz and Schiele, Convolutional Dynamic Alignment Networks for Interpretable Classifications, CVPR 2021 "
    "(mosaics)",
    "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018 "
    "(deletion, insertion)",
    "Chattopadhay et al., Grad-CAM++, WACV 2018 (average drop, increase in confidence)",
    "Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022 (ROAD)",
    "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018 (random head)",
    "Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (intervals)",
)
_LISTED = 50
"""Pictures left out that are named."""


def write(study: Study, output: Path) -> Path:
    """Write report.md, results.json, the plots and the sheet into `output`; returns the report's path."""
    output.mkdir(parents=True, exist_ok=True)
    ranking = ranked(study)
    drawn = [path.name for path in plots.draw(study, ranking, output)]
    sheet = examples.draw(study, ranking, output).name
    (output / "results.json").write_bytes(orjson.dumps(_numbers(study, ranking), option=orjson.OPT_INDENT_2))
    report = output / "report.md"
    report.write_text("\n".join(_lines(study, ranking, drawn, sheet)) + "\n", encoding="utf-8")
    return report


def ranked(study: Study) -> list[Measured]:
    """The methods by mosaic energy, the highest first; then the controls."""
    energy = {one.first: study.estimate(one, "energy").mean for one in study.measured}
    return sorted(study.measured, key=lambda one: (one.first.control, -energy[one.first]))


def _lines(study: Study, ranking: Sequence[Measured], drawn: Sequence[str], sheet: str) -> Iterator[str]:
    card = study.pipeline.card
    yield f"# Evaluation of {escaped(card.name)} ({escaped(card.architecture)})\n\n**{sentence(study)}**\n"
    yield "## How it was measured\n"
    yield from (f"- {line}" for line in _method(study))
    yield "\n## Results\n\nMeans over pictures; in brackets 95 % intervals. Arrows point to the better side.\n"
    yield from results(study, ranking)
    yield from _remarks(study, ranking)
    yield "\n## Against the controls\n"
    yield "The difference to each control, picture by picture. It counts as better or worse where its interval"
    yield "excludes zero. The last column says what speaks against recommending the method.\n"
    yield from against_controls(study, ranking)
    yield from against_best(study, ranking)
    yield "\n## Plots\n"
    yield from (f"![{name.removesuffix('.png')}]({name})\n" for name in drawn)
    yield f"## Examples\n\n![Six pictures and what the methods draw on them]({sheet})\n"
    yield "## What the numbers mean\n"
    yield from (f"- **{metric.heading}**: {metric.meaning}" for metric in METRICS.values())
    yield "\nThe measures ask different things and may disagree. The recommendation follows mosaics, where the truth is"
    yield "known, among the methods that pass the other checks."
    yield from _left_out(study)
    yield "\n## Literature\n"
    yield from (f"- {title}." for title in _LITERATURE)


def _method(study: Study) -> Iterator[str]:
    """How it was measured, one line each."""
    sample, side = study.sample, study.mosaic_side
    whole = len(sample.pictures) + len(sample.left_out)
    named = f"the class that `{LABELS}` names" if sample.labelled else "the model's own first class"
    yield (
        f"{len(sample.pictures)} of {whole} pictures count: the model gives {named} a probability of at least {SURE}."
    )
    yield "Maps are those of the service. Those of the input's size are averaged to the default layer's grid."
    yield (
        f"Mosaics: {study.mosaics} inputs of 2 x 2 pictures, {side} x {side} pixels; a map's positive part counts."
        if study.mosaics
        else "Mosaics: none, because all pictures are of one class. Nothing can be recommended without them."
    )
    yield (
        f"Deletion and insertion: {STEPS} equal steps, the blurred input (sigma 10 % of the side) for what is hidden; "
        f"ROAD: {', '.join(f'{100 * share:.0f}' for share in REMOVED)} % removed. On "
        f"{_count(study, 'deletion')} pictures."
    )
    yield (
        f"Random head: {DRAWS} draws of the last layer's weights, normal with the trained ones' standard deviation. A "
        f"method passes if the interval of the mean rank correlation lies below {THRESHOLD}. On "
        f"{_count(study, 'correlation')} pictures."
    )
    yield f"Controls: {' and '.join(CONTROLS)} — noise for each picture anew, and a Gaussian in the middle."
    yield f"Intervals: bootstrap over pictures, {RESAMPLES} resamples. Everything random comes from seed {study.seed}."


def _count(study: Study, metric: str) -> int:
    return study.estimate(study.methods[0], metric).pictures


def _remarks(study: Study, ranking: Sequence[Measured]) -> Iterator[str]:
    """What the table cannot say: methods with the same maps, and maps without evidence."""
    for one in ranking:
        if len(one.group.subjects) > 1:
            names = ", ".join(f"`{each.method}` at `{place(each)}`" for each in one.group.subjects[1:])
            yield f"\nThe same maps as `{one.first.method}` at `{place(one.first)}`, up to a factor: {names}."
    for one in study.methods:
        empty = int((one.group.maps.max((1, 2)) <= 0).sum())
        if empty:
            yield f"\n`{one.first.method}` shows nothing at all on {empty} of {len(one.group.maps)} pictures."


def _left_out(study: Study) -> Iterator[str]:
    """Pictures that do not count, and why."""
    left = study.sample.left_out
    if not left:
        return
    yield "\n## Pictures left out\n\nThese do not count:\n"
    yield from (f"- {escaped(file)}: {escaped(why)}" for file, why in list(left.items())[:_LISTED])
    if len(left) > _LISTED:
        yield f"- and {len(left) - _LISTED} more, named in `results.json`"


def _numbers(study: Study, ranking: Sequence[Measured]) -> dict[str, Any]:
    """Everything that was measured, for programs; what was not measured is null."""
    card, chosen = study.pipeline.card, best(study)
    return {
        "model": {"name": card.name, "version": card.version, "architecture": card.architecture},
        "seed": study.seed,
        "recommended": {"method": chosen.first.method, "layer": chosen.first.layer} if chosen else None,
        "pictures": [
            {"file": one.file, "class_id": one.class_id, "probability": one.probability}
            for one in study.sample.pictures
        ],
        "left_out": dict(study.sample.left_out),
        "mosaics": {"count": study.mosaics, "side": study.mosaic_side},
        "subjects": [_subject(study, one) for one in ranking],
    }


def _subject(study: Study, one: Measured) -> dict[str, Any]:
    """One group's numbers: means with intervals, differences to the controls, and a value a picture."""
    against = {} if one.first.control else {name: study.control(one, name) for name in CONTROLS}
    return {
        "subjects": [{"method": each.method, "layer": each.layer} for each in one.group.subjects],
        "grid": one.first.grid,
        "control": one.first.control,
        "shortcomings": [] if one.first.control else shortcomings(study, one),
        "means": {name: number(study.estimate(one, name)) for name in METRICS},
        "differences": {
            name: {
                metric: number(study.difference(one, other, metric)) for metric in METRICS if metric != "correlation"
            }
            for name, other in against.items()
        },
        "pictures": {name: one.values[name].tolist() for name in METRICS},
        "curves": {
            "shares": one.curves[0].shares.tolist(),
            **{name: [getattr(curve, name).tolist() for curve in one.curves] for name in ("deletion", "insertion")},
        },
    }
