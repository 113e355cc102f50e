"""What a worker sets up once its model is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import camserve
from camserve.monitor import Aside

ROOT = Path(camserve.__file__).parents[2]
SCRIPT = """
import json, logging, sys
from pathlib import Path
import toynets
from camserve.monitor import prepare, watch

logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
folder = Path(sys.argv[1])
shared = prepare()
pipeline = toynets.loaded(folder, scrape_port=0, **json.loads(sys.argv[2]))
watch(pipeline, folder, 2, shared)
pipeline.answer([toynets.row(), toynets.row(b"no picture")])
from camserve.exporter import Exposition
import os
families = Exposition(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), 1).collect()
samples = {sample.name: sample.value for family in families for sample in family.samples}
names = ("camserve_workers", "camserve_workers_expected", "camserve_model_info")
print(json.dumps({name: samples.get(name) for name in names}))
"""


@pytest.mark.parametrize(("level", "lines"), [("info", 2), ("warning", 1), ("error", 0)])
def test_a_worker_counts_and_logs(tmp_path, level, lines):
    (tmp_path / "model").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model"), json.dumps({"log_level": level})],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'handler'}:{ROOT / 'tests'}",
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {
        "camserve_workers": 1,
        "camserve_workers_expected": 2,
        "camserve_model_info": 1,
    }
    assert [json.loads(line)["request_id"] for line in done.stderr.splitlines() if line.startswith("{")] == [
        "toy"
    ] * lines


def test_a_folder_that_cannot_be_used_stops_no_worker(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.split("from camserve.exporter")[0], str(tmp_path / "model"), "{}"],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'handler'}:{ROOT / 'tests'}",
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "file"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "camserve: no metrics, because their folder cannot be used" in done.stderr
    assert done.stderr.count('{"request_id"') == 2


def test_an_answer_does_not_wait_for_what_is_written_of_it_and_all_of_it_is_written():
    aside, go, done = Aside(), threading.Event(), []

    def first():
        done.append(("begun", go.wait(60)))

    aside(first)
    go.set()  # reached only because the call above came back
    aside(lambda: done.append("second"))
    aside(lambda: None)  # waits for the second
    assert done == [("begun", True), "second"]
