"""Verdicts, drawings and errors to the contract's JSON; schema.json beside this file states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import orjson
import pybase64

from camserve.errors import RequestError
from camserve.options import Options
from camserve.records import (
    Answer,
    Box,
    ClassMap,
    Drawing,
    Image,
    Prepared,
    Quality,
    Task,
    Verdict,
    Verification,
    highest,
    shown,
)

JSON = "application/json"
STATUS = "X-Camserve-Status"
_DIGITS = 3
_EMPTY = 1e-12


@dataclass(frozen=True, slots=True)
class Card:
    """What every answer says about the model; `labels` holds one name a class."""

    name: str
    version: str
    architecture: str
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything known about one picture once it is answered."""

    options: Options
    task: Task
    prepared: Prepared
    verdict: Verdict
    drawings: Sequence[Drawing]
    qualities: Sequence[Quality | None]
    exact: bool
    timing: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Served:
    """One answered row: what was asked for, what became of each picture, and what goes back."""

    request_id: str
    kind: Literal["predict", "kserve", "describe"]
    queue_ms: float | None
    """How long it waited before the handler, in milliseconds; None where that is not known."""
    outcomes: Sequence[Outcome | RequestError]
    answer: Answer

    @property
    def explained(self) -> bool:
        """Whether any of its pictures was."""
        return any(isinstance(one, Outcome) and one.verdict.explained for one in self.outcomes)


def error(fault: RequestError) -> Answer:
    """An error in TorchServe's own shape."""
    return Answer(fault.status, fault.phrase, JSON, orjson.dumps(error_object(fault)), {})


def error_object(fault: RequestError) -> dict[str, Any]:
    """The JSON object of an error."""
    return {"code": fault.status, "type": fault.type, "message": str(fault)}


def single(outcome: Outcome, card: Card, request_id: str, batch_size: int, limit: int) -> Answer:
    """The answer for one picture, at most `limit` bytes as long as there are pictures to drop."""
    return _fitted(_answer(outcome, card, request_id, batch_size), limit)


def picture(outcome: Outcome, card: Card, request_id: str, batch_size: int, limit: int) -> Answer:
    """The overlay itself; where there is none to give, the JSON with its status as a header."""
    overlay = next((drawing.overlay for drawing in outcome.drawings if drawing.overlay), None)
    if overlay is None:
        answer = single(outcome, card, request_id, batch_size, limit)
        return replace(answer, headers={STATUS: "shed" if outcome.verdict.shed else "failed"})
    state = class_status(outcome.verdict.maps[0], outcome.task)
    return Answer(200, "OK", overlay.mime, overlay.data, {STATUS: state})


def kserve(
    outcomes: Sequence[Outcome | RequestError], card: Card, request_id: str, batch_size: int, limit: int
) -> Answer:
    """KServe V1: predictions and explanations run parallel; 200 if any instance is good."""
    faults = [outcome for outcome in outcomes if isinstance(outcome, RequestError)]
    objects = [
        {"error": error_object(o)} if isinstance(o, RequestError) else _answer(o, card, request_id, batch_size)
        for o in outcomes
    ]
    explanations = [one.pop("explanation", None) for one in objects]
    whole = {"predictions": objects, "explanations": explanations}
    if len(faults) == len(outcomes):
        return Answer(faults[0].status, faults[0].phrase, JSON, orjson.dumps(whole), {})
    return _fitted(whole, limit)


def described(description: Mapping[str, Any]) -> Answer:
    """The describe answer."""
    return Answer(200, "OK", JSON, orjson.dumps(description), {})


def class_status(evidence: ClassMap, task: Task) -> str:
    """`ok`, `empty_map` where nothing speaks for what is asked, or `failed`."""
    if evidence.map is None:
        return "failed"
    return "ok" if np.max(shown(evidence.map, task.polarity)) > _EMPTY else "empty_map"


def class_statuses(outcome: Outcome) -> list[str]:
    """What became of each class that was to be explained; `shed` where the maps were given up under load."""
    if outcome.verdict.shed:
        return ["shed"] * outcome.task.how_many
    return [class_status(evidence, outcome.task) for evidence in outcome.verdict.maps]


def _answer(outcome: Outcome, card: Card, request_id: str, batch_size: int) -> dict[str, Any]:
    prepared, verdict = outcome.prepared, outcome.verdict
    answer = {
        "request_id": request_id,
        "batch_size": batch_size,
        "timing_ms": {stage: ms if ms is None else round(ms, _DIGITS) for stage, ms in outcome.timing.items()},
        "model": {"name": card.name, "version": card.version, "architecture": card.architecture},
        "image": {
            "width": prepared.width,
            "height": prepared.height,
            "crop": prepared.crop and _box(prepared.crop),
            "model_box": _box(prepared.model_box),
        },
        "predictions": _predictions(verdict, outcome.options.topk, card),
    }
    if outcome.options.explain:
        answer["explanation"] = _explanation(outcome, card)
    return answer


def _predictions(verdict: Verdict, topk: int, card: Card) -> list[dict[str, Any]]:
    return [
        {
            "class_id": k,
            "label": card.labels[k],
            "probability": float(verdict.probabilities[k]),
            "logit": float(verdict.logits[k]),
        }
        for k in highest(verdict.logits, topk)
    ]


def _explanation(outcome: Outcome, card: Card) -> dict[str, Any]:
    task, verdict = outcome.task, outcome.verdict
    if verdict.trigger is None:
        return {"status": "not_needed"}
    if verdict.shed:
        return {"status": "shed"}
    classes = [
        _class(evidence, drawing, quality, outcome, card)
        for evidence, drawing, quality in zip(verdict.maps, outcome.drawings, outcome.qualities, strict=True)
    ]
    grid = next((list(m.map.shape) for m in verdict.maps if m.map is not None), None)
    return {
        "status": _overall(classes),
        "method": task.method,
        "exact": outcome.exact,
        "layer": task.layer,
        "grid_shape": grid,
        "trigger": verdict.trigger,
        "classes": classes,
    }


def _overall(classes: Sequence[Mapping[str, Any]]) -> str:
    failed = sum(one["status"] == "failed" for one in classes)
    if not failed:
        return "ok"
    return "failed" if failed == len(classes) else "partial"


def _class(
    evidence: ClassMap, drawing: Drawing, quality: Quality | None, outcome: Outcome, card: Card
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        **_named(evidence.class_id, card),
        "status": class_status(evidence, outcome.task),
        "polarity": outcome.task.polarity,
        "contrast": None if evidence.contrast is None else _named(evidence.contrast, card),
    }
    if evidence.map is None:
        return entry | {"reason": evidence.failure}
    entry |= _drawn(drawing)
    if "grid" in outcome.options.maps:
        entry["grid"] = _grid(evidence.map)
    if evidence.bias is not None:
        entry["ledger"] = _ledger(evidence, outcome.verdict)
    if quality is not None:
        entry["quality"] = _quality(quality)
    if evidence.verification is not None and outcome.options.verify:
        entry["verify"] = _verification(evidence.verification)
    if evidence.channels:
        entry["channels"] = [
            {"index": one.index, "share": round(one.share, 6), "grid": _grid(one.map)} for one in evidence.channels
        ]
    return entry


def _quality(quality: Quality) -> dict[str, Any]:
    numbers = {name: getattr(quality, name) for name in ("positive_share", "entropy", "border_share")}
    rounded = {name: value if value is None else round(value, 4) for name, value in numbers.items()}
    return {**rounded, "flags": list(quality.flags)}


def _drawn(drawing: Drawing) -> dict[str, Any]:
    """The pictures and regions that were asked for."""
    entry: dict[str, Any] = {}
    if drawing.overlay:
        entry["overlay"] = _image(drawing.overlay)
    if drawing.heatmap:
        entry["heatmap"] = _image(drawing.heatmap)
    if drawing.regions is not None:
        entry["regions"] = [{"box": _box(box), "share": round(share, 4)} for box, share in drawing.regions]
    return entry


def _verification(measured: Verification) -> dict[str, Any]:
    return {
        "area": measured.area,
        "probability": measured.probability,
        "without_top": measured.without_top,
        "without_random": list(measured.without_random),
    }


def _named(class_id: int, card: Card) -> dict[str, Any]:
    return {"class_id": class_id, "label": card.labels[class_id]}


def _ledger(evidence: ClassMap, verdict: Verdict) -> dict[str, float]:
    """The audit of an exact map: evidence + bias = logit, and by how much it is off."""
    assert evidence.map is not None
    assert evidence.bias is not None
    total = float(evidence.map.mean(dtype=np.float64))
    logit = float(verdict.logits[evidence.class_id])
    if evidence.contrast is not None:
        logit -= float(verdict.logits[evidence.contrast])
    return {
        "evidence": total,
        "bias": evidence.bias,
        "logit": logit,
        "error": abs(total + evidence.bias - logit),
    }


def _grid(signed: np.ndarray) -> dict[str, Any]:
    """Value = data x scale; the data are row by row, little-endian, in [-1, 1]."""
    peak = float(np.abs(signed).max())
    scale = peak if peak > _EMPTY else 1.0
    data = (signed / np.float32(scale)).astype("<f4").tobytes()
    return {"dtype": "float32", "shape": list(signed.shape), "scale": scale, "data": _base64(data)}


def _image(image: Image) -> dict[str, Any]:
    quality = {} if image.quality is None else {"quality": image.quality}
    return {
        "mime": image.mime,
        "width": image.width,
        "height": image.height,
        **quality,
        "data": _base64(image.data),
    }


def _base64(data: bytes) -> str:
    return pybase64.b64encode_as_string(data)


def _box(box: Box) -> list[float]:
    return [round(edge, _DIGITS) for edge in box]


def _fitted(answer: dict[str, Any], limit: int) -> Answer:
    """Serialise; where that is too large, drop the largest pictures and say so."""
    body, dropped = orjson.dumps(answer), 0
    while len(body) > limit and (more := _drop(answer, len(body) - limit, limit)):
        body, dropped = orjson.dumps(answer), dropped + more
    return Answer(200, "OK", JSON, body, {}, dropped)


def _drop(answer: dict[str, Any], excess: int, limit: int) -> int:
    """Drop pictures, largest first, until `excess` characters are gone; how many that were."""
    dropped = 0
    while excess > 0 and (largest := _largest_picture(answer)):
        explanation, entry, name = largest
        excess -= _room(entry.pop(name))
        entry["status"] = "failed"
        entry["reason"] = f"Dropped {name}: the answer would pass {limit} bytes. Ask for fewer or smaller maps."
        explanation["status"] = _overall(explanation["classes"])
        dropped += 1
    return dropped


def _largest_picture(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str] | None:
    """The explanation, the class and the name of what takes most room; all of a class's channels count as one."""
    found = [
        (explanation, entry, name)
        for explanation in answer.get("explanations", [answer.get("explanation")])
        if explanation
        for entry in explanation.get("classes", [])
        for name in ("overlay", "heatmap", "grid", "channels")
        if name in entry
    ]
    return max(found, key=lambda one: _room(one[1][one[2]]), default=None)


def _room(part: dict[str, Any] | list[dict[str, Any]]) -> int:
    """Characters of base64 in a picture, a grid or a list of channels."""
    if isinstance(part, list):
        return sum(len(channel["grid"]["data"]) for channel in part)
    return len(part["data"])
