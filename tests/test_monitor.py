"""What a worker sets up once its model is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import camserve

ROOT = Path(camserve.__file__).parents[2]
SCRIPT = """
import json, logging, sys
from pathlib import Path
import toynets
from camserve.monitor import watch

logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
folder = Path(sys.argv[1])
pipeline = toynets.loaded(folder, scrape_port=0, **json.loads(sys.argv[2]))
watch(pipeline, folder, 2)
pipeline.answer([toynets.row(), toynets.row(b"no picture")])
from camserve.exporter import Exposition
import os
samples = {s.name: s.value for f in Exposition(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), 1).collect() for s in f.samples}
print(json.dumps({name: samples.get(name) for name in ("camserve_workers", "camserve_workers_expected", "camserve_model_info")}))
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
