"""What a batch leaves in the metrics, read back as a scraper would."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest

import toynets
from camserve.groups import Groups
from camserve.metrics import METRICS, Metrics
from camserve.records import Row
from camserve.shedding import Shedding
from pictures import cat, encoded


@pytest.fixture
def watched(seeded):
    """The seeded network's pipeline and its metrics; nobody else watches."""
    metrics = Metrics(seeded.card, Groups({"odd": (1, 3, 5, 7, 9)}, seeded.card.labels), seeded.engine.default)
    seeded.watchers[:] = [metrics.record]
    yield seeded, Read(metrics)
    seeded.watchers.clear()


class Read:
    """Samples by name and labels; model and version are the toy's."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def __call__(self, name: str, **labels: str) -> float | None:
        whole = {"model": "toy", "version": "1.0", **labels}
        return self.metrics.registry.get_sample_value(f"camserve_{name}", whole)

    def samples(self, name: str) -> list[Mapping[str, str]]:
        families = self.metrics.registry.collect()
        return [sample.labels for family in families for sample in family.samples if sample.name == f"camserve_{name}"]


def test_a_plain_request(watched):
    pipeline, read = watched
    answer = toynets.good(pipeline.answer([toynets.row()])[0])
    assert read("requests_total", explained="false", outcome="ok") == 1
    assert read("request_seconds_count", explained="false") == 1
    assert read("batch_rows_sum") == 1
    assert read("batch_explained_ratio_sum") == 0
    assert read("picture_pixels_sum") == answer["image"]["width"] * answer["image"]["height"]
    assert read("prediction_probability_sum") == pytest.approx(answer["predictions"][0]["probability"])
    first, second = answer["predictions"][:2]
    assert read("prediction_margin_sum") == pytest.approx(first["probability"] - second["probability"])
    group = "odd" if first["class_id"] % 2 else "other"
    assert read("predictions_total", group=group) == 1
    assert read.samples("explanations_total") == []
    assert read("stage_seconds_count", stage="explain") is None
    for stage in ("decode", "preprocess", "forward", "total"):
        assert read("stage_seconds_count", stage=stage) == 1
        assert read("stage_seconds_sum", stage=stage) > 0


def test_an_explained_request(watched):
    pipeline, read = watched
    asked = toynets.row(explain=True, classes="top:2", maps="overlay,grid", verify=True)
    body = pipeline.answer([asked])[0].body
    answer = toynets.good(pipeline.answer([asked])[0])
    assert read("requests_total", explained="true", outcome="ok") == 2
    assert read("response_bytes_sum", explained="true") == pytest.approx(2 * len(body), rel=0.01)
    assert read("explanations_total", method="gradcam", status="ok") == 4
    entries = answer["explanation"]["classes"]
    for name, key in (("entropy", "entropy"), ("border", "border_share"), ("positive", "positive_share")):
        total = sum(entry["quality"][key] for entry in entries)
        assert read(f"map_{name}_ratio_sum", method="gradcam") == pytest.approx(2 * total, abs=1e-3)
    likeliest = entries[0]["verify"]  # the other class is not what is predicted: hiding it tells nothing
    drop = max(0, likeliest["probability"] - likeliest["without_top"])
    assert read("verified_drop_ratio_sum", place="top") == pytest.approx(2 * drop, abs=1e-6)
    assert read("verified_drop_ratio_count", place="random") == 2 * 3
    raised = [flag for entry in entries for flag in entry["quality"]["flags"]]
    assert {labels["flag"] for labels in read.samples("flags_total")} == set(raised)
    for flag in raised:
        assert read("flags_total", flag=flag) == 2 * raised.count(flag)


def test_pictures_left_out_for_size_are_counted(watched, monkeypatch):
    pipeline, read = watched
    monkeypatch.setattr(pipeline, "settings", pipeline.settings.model_copy(update={"max_answer_bytes": 10_000}))
    (answer,) = pipeline.answer([toynets.row(explain=True, classes="top:3")])
    left_out = sum("Dropped" in one.get("reason", "") for one in toynets.good(answer)["explanation"]["classes"])
    assert left_out > 0
    assert read("dropped_total") == left_out


@pytest.mark.parametrize("options", [{"polarity": "negative"}, {"classes": "9,8,7,6,5,4,3,2,1,0"}], ids=str)
def test_a_drop_is_counted_for_what_speaks_for_the_prediction_only(watched, options):
    pipeline, read = watched
    toynets.good(pipeline.answer([toynets.row(explain=True, verify=True, **options)])[0])
    assert (read("verified_drop_ratio_count", place="top") or 0) == (1 if "classes" in options else 0)


def test_the_wait_of_a_row_that_fails_counts(watched):
    import time

    pipeline, read = watched
    pipeline.answer([toynets.row(b"no picture", headers={"x-request-start": f"t={int((time.time() - 2) * 1e3)}"})])
    assert read("queue_seconds_sum") >= 2
    assert read("request_seconds_count", explained="false") is None, "a refusal is no prediction"


def test_evidence_is_that_of_the_likeliest_class(watched):
    pipeline, read = watched
    answer = toynets.good(pipeline.answer([toynets.row(explain=True, classes="top:3", maps="grid")])[0])
    first = answer["explanation"]["classes"][0]
    group = "odd" if first["class_id"] % 2 else "other"
    assert read("evidence_maps_total", group=group) == 1
    cells = np.array(
        [[read("evidence_total", group=group, row=str(r), column=str(c)) for c in range(7)] for r in range(7)]
    )
    assert cells.sum() == pytest.approx(1)
    from camserve.drift import evidence

    np.testing.assert_allclose(cells, evidence(toynets.grid(first)), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "layercam"},
        {"layer": "early"},
        {"polarity": "negative"},
        {"contrast": "runner_up"},
        {"classes": "bad"},
    ],
    ids=str,
)
def test_maps_that_do_not_compare_leave_no_evidence(watched, options):
    pipeline, read = watched
    if options == {"classes": "bad"}:
        worst = toynets.good(pipeline.answer([toynets.row(topk=10)])[0])["predictions"][-1]["class_id"]
        options = {"classes": worst}
    toynets.good(pipeline.answer([toynets.row(explain=True, **options)])[0])
    assert read.samples("explanations_total")
    assert read.samples("evidence_maps_total") == []


def test_errors_are_counted_by_type_and_are_the_clients(watched):
    pipeline, read = watched
    pipeline.answer([toynets.row(b"no picture"), toynets.row(cat()[:1000]), toynets.row(opacity=9), toynets.row()])
    assert read("requests_total", explained="false", outcome="client_error") == 3
    assert read("requests_total", explained="false", outcome="ok") == 1
    assert {labels["type"] for labels in read.samples("errors_total")} == {
        "UnsupportedFormat",
        "Undecodable",
        "InvalidOption",
    }
    assert read("batch_rows_sum") == 1, "what is not predicted is in no batch"


def test_a_mixed_batch(watched):
    pipeline, read = watched
    pipeline.answer([toynets.row(), toynets.row(explain=True), toynets.row(explain=True), toynets.row()])
    assert read("batch_rows_sum") == 4
    assert read("batch_explained_ratio_sum") == 0.5
    assert read("requests_total", explained="true", outcome="ok") == 2


def test_a_shed_request_counts_its_classes_as_shed_and_its_time_as_plain(watched, monkeypatch):
    import time

    pipeline, read = watched
    monkeypatch.setattr(pipeline, "shedding", Shedding(1e6))
    late = {"x-request-start": f"t={int((time.time() - 2_000) * 1e3)}"}
    rows = [
        toynets.row(headers=late),
        toynets.row(explain=True, classes="top:2"),
        toynets.row(explain=True, method="layercam", classes="1,2,3"),
        toynets.row(explain="auto"),
    ]
    answers = [toynets.good(answer) for answer in pipeline.answer(rows)]
    assert [one.get("explanation", {}).get("status") for one in answers] == [None, "shed", "shed", "not_needed"]
    assert read("explanations_total", method="gradcam", status="shed") == 2
    assert read("explanations_total", method="layercam", status="shed") == 3
    assert {labels["status"] for labels in read.samples("explanations_total")} == {"shed"}
    assert read("requests_total", explained="false", outcome="ok") == 4
    assert read("requests_total", explained="true", outcome="ok") is None
    assert read("request_seconds_count", explained="false") == 4
    assert read("response_bytes_count", explained="false") == 4
    assert read("batch_explained_ratio_sum") == 0
    assert read.samples("evidence_maps_total") == []
    for stage in ("explain", "render", "encode"):
        assert read("stage_seconds_count", stage=stage) is None, "it would make explaining look cheap"


def test_describing_counts_nowhere(watched):
    pipeline, read = watched
    pipeline.answer([Row("toy", {}, {"describe": "true"})])
    assert read.samples("requests_total") == []
    assert read("batch_rows_count") == 0 or read("batch_rows_count") is None


def test_the_wait_in_the_queue_is_part_of_the_request(watched):
    import time

    pipeline, read = watched
    pipeline.answer([toynets.row(headers={"x-request-start": f"t={int((time.time() - 2) * 1e3)}"})])
    assert 2 <= read("queue_seconds_sum") < 3
    assert 2 <= read("request_seconds_sum", explained="false") < 4


def test_an_empty_map_is_told(bright):
    metrics = Metrics(bright.card, Groups({}, bright.card.labels), bright.engine.default)
    bright.watchers[:] = [metrics.record]
    try:
        black = encoded(np.zeros((64, 64, 3), np.uint8), "PNG")
        bright.answer([toynets.row(black, explain=True, classes=0)])
    finally:
        bright.watchers.clear()
    read = Read(metrics)
    assert read("explanations_total", method="gradcam", status="empty_map") == 1
    assert read("flags_total", flag="empty") == 1
    assert read("predictions_total", group="dark") == 1, "few classes stand for themselves"


def test_a_share_of_explained_requests_is_verified_and_the_answer_does_not_show_it(watched, monkeypatch):
    pipeline, read = watched
    monkeypatch.setattr(pipeline, "settings", pipeline.settings.model_copy(update={"verify_share": 1.0}))
    answer = toynets.good(pipeline.answer([toynets.row(explain=True)])[0])
    assert "verify" not in answer["explanation"]["classes"][0]
    assert read("verified_drop_ratio_count", place="top") == 1


def test_a_watcher_that_fails_costs_no_answer(seeded, caplog):
    def fail(served, seconds):
        raise RuntimeError("the disk is full")

    told = []
    seeded.watchers[:] = [fail, lambda served, seconds: told.append(len(served))]
    try:
        toynets.good(seeded.answer([toynets.row()])[0])
    finally:
        seeded.watchers.clear()
    assert told == [1]
    assert "could not be recorded" in caplog.text


def test_names_and_units_are_prometheus_own():
    for name, row in METRICS.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert not name.endswith("_total")
        assert row.help.endswith(".")
        assert not any(unit in name for unit in ("_ms", "milliseconds", "_kb", "percent"))


def test_what_alerts_watch_begins_at_zero(bright):
    metrics = Metrics(bright.card, Groups({}, ()), "features")
    metrics._zeros()
    read = Read(metrics)
    for status in ("empty_map", "shed"):
        assert read("explanations_total", method="gradcam", status=status) == 0
    assert read("flags_total", flag="single_cell") == 0
    assert read("dropped_total") == 0


def test_a_gpu_is_told_where_there_is_one(seeded):
    metrics = Metrics(seeded.card, Groups({}, ()), "features", lambda: ("cuda:0", 123, 0.5))
    metrics.started(
        dict.fromkeys(METRICS["model_info"].labels, "x"), dict.fromkeys(METRICS["build_info"].labels, "y"), 2, 9
    )
    read = Read(metrics)
    assert read("gpu_memory_bytes", device="cuda:0") == 123
    assert read("gpu_utilization_ratio", device="cuda:0") == 0.5
    assert read("workers") == 1
    assert read("workers_expected") == 2
    assert read("worker_memory_bytes") > 10**7
