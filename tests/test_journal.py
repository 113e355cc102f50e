"""The log: one line of JSON for each request, and nothing of a client's in it."""

from __future__ import annotations

import json
import logging
import time

import pytest

import toynets
from camserve.journal import Journal
from camserve.shedding import Shedding
from pictures import cat


@pytest.fixture
def written(seeded, caplog):
    """Answers rows with a journal that keeps so many of the good ones, and gives its lines."""
    caplog.set_level(logging.INFO, "camserve.requests")

    def lines(rows, sample=1.0):
        seeded.watchers[:] = [Journal(seeded.card, sample).write]
        try:
            seeded.answer(rows)
        finally:
            seeded.watchers.clear()
        return [(record.levelname, json.loads(record.message)) for record in caplog.records]

    return lines


def test_a_plain_and_an_explained_request(written):
    plain, explained = written([toynets.row(), toynets.row(explain=True, classes="top:2")])
    level, line = plain
    assert level == "INFO"
    assert (line["request_id"], line["model"], line["version"], line["status"]) == ("toy", "toy", "1.0", 200)
    assert line["explained"] is False
    assert line["batch_size"] == 2
    (picture,) = line["pictures"]
    assert (picture["width"], picture["height"]) == (451, 300)
    assert set(picture["ms"]) >= {"queue", "decode", "preprocess", "forward"}
    assert line["total_ms"] > 0
    assert explained[1]["explained"] is True
    assert explained[1]["pictures"][0]["method"] == "gradcam"
    assert explained[1]["pictures"][0]["trigger"] == "request"
    assert explained[1]["pictures"][0]["classes"] == ["ok", "ok"]


def test_a_shed_request_says_so(written, seeded, monkeypatch):
    monkeypatch.setattr(seeded, "shedding", Shedding(1e6))
    late = {"x-request-start": f"t={int((time.time() - 2_000) * 1e3)}"}
    ((level, line),) = written([toynets.row(headers=late, explain=True, classes="top:2", method="layercam")])
    assert (level, line["status"], line["explained"]) == ("INFO", 200, False)
    (picture,) = line["pictures"]
    assert (picture["trigger"], picture["method"], picture["classes"]) == ("request", "layercam", ["shed", "shed"])


def test_a_fault_is_a_warning_without_a_traceback(written, caplog):
    ((level, line),) = written([toynets.row(b"secret text")])
    assert level == "WARNING"
    assert line["status"] == 415
    assert line["pictures"] == [{"error": "UnsupportedFormat"}]
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text


def test_good_requests_can_be_left_out_and_faults_cannot(written):
    lines = written([toynets.row(), toynets.row(cat()[:900]), toynets.row()], sample=0.0)
    assert [line["status"] for _, line in lines] == [422]
