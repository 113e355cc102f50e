"""Every metric there is, and the only calls that record them.

The numbers of all workers of a TorchServe add up: they lie in files the workers share, and exporter.py gives out their
sums. Nothing here knows a picture: what is recorded are counts, times, sizes and shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from camserve.drift import CELLS, Shares, centre, usual
from camserve.errors import RequestError
from camserve.groups import Groups
from camserve.records import ClassMap, Quality, Verdict, shown
from camserve.response import Card, Outcome, Served, class_status, class_statuses

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
PIXELS = (1e4, 1e5, 2.5e5, 5e5, 1e6, 2e6, 4e6, 8e6, 1.6e7, 5e7)
BYTES = (1e3, 4e3, 1.6e4, 3.2e4, 6.4e4, 1.28e5, 2.56e5, 5.12e5, 1e6, 2e6, 3e6, 3.2e6, 4e6, 8e6)


_LOOK_SECONDS = 1.0
_PLACES = tuple((str(row), str(column)) for row in range(CELLS) for column in range(CELLS))

EXPLAINING = ("explain", "render", "encode")
"""Stages that only explained pictures pass."""

FLAGS = ("empty", "flat", "border_hugging", "single_cell", "not_class_discriminative", "low_margin")


class Row(NamedTuple):
    """One metric: its kind, what it tells, its labels beside `model` and `version`, and what its kind needs."""

    kind: type[Counter] | type[Gauge] | type[Histogram]
    help: str
    labels: tuple[str, ...] = ()
    more: Mapping[str, Any] = {}


def _spread(help: str, labels: tuple[str, ...], buckets: Sequence[float]) -> Row:
    return Row(Histogram, help, labels, {"buckets": buckets})


def _now(help: str, labels: tuple[str, ...] = (), mode: str = "livesum") -> Row:
    return Row(Gauge, help, labels, {"multiprocess_mode": mode})


METRICS: Mapping[str, Row] = {
    "requests": Row(Counter, "Requests answered.", ("explained", "outcome")),
    "errors": Row(Counter, "Pictures answered with an error, by the type in the answer.", ("type",)),
    "explanations": Row(Counter, "Classes to be explained, by what became of each.", ("method", "status")),
    "dropped": Row(Counter, "Pictures and grids left out of answers that would have been too large."),
    "flags": Row(Counter, "Flags raised by maps.", ("flag",)),
    "predictions": Row(Counter, "Pictures predicted, by the group of the likeliest class.", ("group",)),
    "evidence": Row(Counter, "Share of a map's evidence in each cell, summed over maps.", ("group", "row", "column")),
    "evidence_maps": Row(Counter, "Maps whose evidence was summed.", ("group",)),
    "request_seconds": _spread("From the gateway to a good answer.", ("explained",), SECONDS),
    "stage_seconds": _spread("Time in a stage of the path, a picture.", ("stage",), SECONDS),
    "queue_seconds": _spread("From the gateway to the handler.", (), SECONDS),
    "batch_rows": _spread("Pictures in a batch.", (), ROWS),
    "batch_explained_ratio": _spread("Explained pictures of a batch.", (), SHARES),
    "picture_pixels": _spread("Pixels of a picture.", (), PIXELS),
    "response_bytes": _spread("Size of an answer.", ("explained",), BYTES),
    "prediction_probability": _spread("Probability of the likeliest class.", (), SHARES),
    "prediction_margin": _spread("Distance in probability of the two likeliest classes.", (), SHARES),
    "map_entropy_ratio": _spread("How evenly a map's evidence is spread.", ("method",), SHARES),
    "map_border_ratio": _spread("Share of a map's evidence in its outer ring.", ("method",), SHARES),
    "map_positive_ratio": _spread("Share of a map that speaks for the class.", ("method",), SHARES),
    "map_center_x_ratio": _spread("Centre of a map's evidence, from its left edge.", ("method",), SHARES),
    "map_center_y_ratio": _spread("Centre of a map's evidence, from its upper edge.", ("method",), SHARES),
    "verified_drop_ratio": _spread("Fall in probability with the evidence, or as much, hidden.", ("place",), SHARES),
    "model_info": _now("The model.", ("architecture", "layer", "exact", "device"), "livemax"),
    "build_info": _now("The software.", ("camserve", "torch", "python"), "livemax"),
    "workers": _now("Workers alive."),
    "workers_expected": _now("Workers there should be.", mode="livemax"),
    "worker_memory_bytes": _now("Resident memory of the workers."),
    "response_limit_bytes": _now("Where an answer's pictures are dropped.", mode="livemax"),
    "gpu_memory_bytes": _now("Memory that torch holds on the GPU.", ("device",)),
    "gpu_utilization_ratio": _now("How busy the GPU is.", ("device",), "livemax"),
}
"""Name without `camserve_` and `_total`; every metric also has the labels `model` and `version`."""

GpuReading = Callable[[], tuple[str, int, float | None] | None]
"""Name of the device, bytes held, and utilisation from 0 to 1 if it is known; None without a GPU."""


def build(registry: CollectorRegistry) -> dict[str, Any]:
    """Every metric of the table, in a registry of its own."""
    return {
        name: row.kind(f"camserve_{name}", row.help, ("model", "version", *row.labels), registry=registry, **row.more)
        for name, row in METRICS.items()
    }


class Metrics:
    """The metrics of one model in one worker."""

    def __init__(self, card: Card, groups: Groups, default_layer: str, gpu: GpuReading = lambda: None) -> None:
        self.registry = CollectorRegistry()
        self._all = build(self.registry)
        self._own = (card.name, card.version)
        self._groups = groups
        self._default_layer = default_layer
        self._gpu = gpu
        self._process = psutil.Process()
        self._next_look = 0.0
        self._series: dict[tuple[str, ...], Any] = {}

    def started(self, info: Mapping[str, str], build_info: Mapping[str, str], workers: int, limit: int) -> None:
        """What a worker knows once it is loaded."""
        self._at("model_info", *(info[name] for name in METRICS["model_info"].labels)).set(1)
        self._at("build_info", *(build_info[name] for name in METRICS["build_info"].labels)).set(1)
        self._at("workers").set(1)
        self._at("workers_expected").set(workers)
        self._at("response_limit_bytes").set(limit)
        self._zeros()
        self._machine()

    def _zeros(self) -> None:
        """Series that alerts watch begin at zero: a rate does not see the first count of one that did not exist."""
        for explained in ("true", "false"):
            for outcome in ("ok", "client_error", "server_error"):
                self._at("requests", explained, outcome)
        for status in ("ok", "empty_map", "failed", "shed"):
            self._at("explanations", "gradcam", status)
        for flag in FLAGS:
            self._at("flags", flag)
        self._at("dropped")

    def record(self, batch: Sequence[Served], seconds: float) -> None:
        """A batch that was answered within `seconds` of its arrival at the handler."""
        counted = [served for served in batch if served.kind != "describe"]
        if not counted:
            return
        for served in counted:
            self._request(served, seconds)
        outcomes = [one for served in counted for one in served.outcomes if isinstance(one, Outcome)]
        for outcome in outcomes:
            self._picture(outcome, seconds)
        self._evidence(outcomes)
        if outcomes:
            self._at("batch_rows").observe(len(outcomes))
            share = sum(outcome.verdict.explained for outcome in outcomes) / len(outcomes)
            self._at("batch_explained_ratio").observe(share)
        self._machine()

    def _at(self, name: str, *labels: str) -> Any:
        """One series; kept, because prometheus_client looks each up under a lock."""
        series = self._series.get((name, *labels))
        if series is None:
            series = self._series[name, *labels] = self._all[name].labels(*self._own, *labels)
        return series

    def _request(self, served: Served, seconds: float) -> None:
        explained = "true" if served.explained else "false"
        self._at("requests", explained, _outcome(served.answer.status)).inc()
        if served.answer.status < 400:  # refusals are quick, and would make predictions look so
            self._at("request_seconds", explained).observe(seconds + (served.queue_ms or 0) / 1e3)
        if served.queue_ms is not None:
            self._at("queue_seconds").observe(served.queue_ms / 1e3)
        if served.answer.dropped:
            self._at("dropped").inc(served.answer.dropped)
        self._at("response_bytes", explained).observe(len(served.answer.body))
        for fault in served.outcomes:
            if isinstance(fault, RequestError):
                self._at("errors", fault.type).inc()

    def _picture(self, outcome: Outcome, seconds: float) -> None:
        explained = outcome.verdict.explained
        for stage, ms in outcome.timing.items():
            if ms is not None and stage != "queue" and (explained or stage not in EXPLAINING):
                self._at("stage_seconds", stage).observe(ms / 1e3)
        self._at("stage_seconds", "total").observe(seconds)
        self._at("picture_pixels").observe(outcome.prepared.width * outcome.prepared.height)
        self._prediction(outcome.verdict)
        for status in class_statuses(outcome):
            self._at("explanations", outcome.task.method, status).inc()
        for one, quality in zip(outcome.verdict.maps, outcome.qualities, strict=True):
            self._map(outcome, one, quality)

    def _prediction(self, verdict: Verdict) -> None:
        first, second = verdict.best_two
        self._at("prediction_probability").observe(first)
        self._at("prediction_margin").observe(first - second)
        self._at("predictions", self._groups.of(verdict.likeliest)).inc()

    def _map(self, outcome: Outcome, one: ClassMap, quality: Quality | None) -> None:
        if one.map is None or quality is None:
            return
        method = outcome.task.method
        for flag in quality.flags:
            self._at("flags", flag).inc()
        numbers = {"entropy": quality.entropy, "border": quality.border_share, "positive": quality.positive_share}
        for name, value in numbers.items():
            if value is not None:
                self._at(f"map_{name}_ratio", method).observe(value)
        middle = centre(shown(one.map, outcome.task.polarity))
        if middle is not None:
            self._at("map_center_x_ratio", method).observe(middle[0])
            self._at("map_center_y_ratio", method).observe(middle[1])
        self._verified(outcome, one)

    def _verified(self, outcome: Outcome, one: ClassMap) -> None:
        """How far the probability fell; a rise counts as no fall.

        Only for what speaks for the likeliest class: hiding anything else should not make it fall.
        """
        measured, task = one.verification, outcome.task
        plain = task.polarity == "positive" and one.contrast is None and one.class_id == outcome.verdict.likeliest
        if measured is None or not plain or class_status(one, task) != "ok":
            return
        drops: list[tuple[Literal["top", "random"], float]] = [("top", measured.without_top)]
        drops += [("random", chance) for chance in measured.without_random]
        for place, chance in drops:
            self._at("verified_drop_ratio", place).observe(max(0.0, measured.probability - chance))

    def _evidence(self, outcomes: Sequence[Outcome]) -> None:
        """Where the model looks for what it predicts, summed over the batch first: there are many cells to count in."""
        sums: dict[str, Shares] = {}
        for class_id, cells in filter(None, (usual(outcome, self._default_layer) for outcome in outcomes)):
            group = self._groups.of(class_id)
            self._at("evidence_maps", group).inc()
            sums[group] = sums.get(group, 0) + cells
        for group, total in sums.items():
            for place, share in zip(_PLACES, total.ravel().tolist(), strict=True):
                self._at("evidence", group, *place).inc(share)

    def _machine(self) -> None:
        """Memory and GPU, at most once a second: asking for them takes longer than all that is counted."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        self._at("worker_memory_bytes").set(self._process.memory_info().rss)
        reading = self._gpu()
        if reading is not None:
            device, held, busy = reading
            self._at("gpu_memory_bytes", device).set(held)
            if busy is not None:
                self._at("gpu_utilization_ratio", device).set(busy)


def _outcome(status: int) -> str:
    if status < 400:
        return "ok"
    return "client_error" if status < 500 else "server_error"
