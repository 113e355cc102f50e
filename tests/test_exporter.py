"""One scrape port for all workers: real processes, really killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import camserve
from camserve import exporter
from camserve.errors import SetupError

HANDLER = Path(camserve.__file__).parents[1]


class Worker:
    """A process that counts and listens."""

    def __init__(self, folder: Path, port: int, freeze_after: int = 10**6) -> None:
        script = Path(__file__).parent / "counting_worker.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(port), str(freeze_after)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(HANDLER)},
        )
        assert self.process.stdout.readline() == "ready\n"

    def count(self, name: str, amount: float, *labels: str) -> None:
        print(name, amount, *labels, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def worker(tmp_path, port):
    """Starts workers on one port; ends all that are left."""
    started: list[Worker] = []

    def start(**more) -> Worker:
        started.append(Worker(tmp_path, port, **more))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()


def scrape(port: int) -> dict[tuple, float]:
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    return {
        (sample.name.removeprefix("camserve_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def requests_total(port: int) -> float:
    return scrape(port)["requests_total", "1.0", "false", "ok", "toy"]


def test_every_scrape_gives_the_sum_of_all_workers(worker, port):
    one, two = worker(), worker()
    one.count("requests", 3, "false", "ok")
    two.count("requests", 4, "false", "ok")
    assert {requests_total(port) for _ in range(20)} == {7.0}
    assert scrape(port)["workers", "1.0", "toy"] == 2
    assert scrape(port)["workers_expected", "1.0", "toy"] == 2
    assert scrape(port)["response_limit_bytes", "1.0", "toy"] == 4_000_000


def test_a_killed_worker_loses_no_count_and_is_missed(worker, port):
    one, two = worker(), worker()
    one.count("requests", 3, "false", "ok")
    two.count("requests", 4, "false", "ok")
    one.kill()
    assert {requests_total(port) for _ in range(10)} == {7.0}
    assert scrape(port)["workers", "1.0", "toy"] == 1
    three = worker()
    three.count("requests", 1, "false", "ok")
    assert {requests_total(port) for _ in range(10)} == {8.0}, "nothing lost, nothing doubled"
    assert scrape(port)["workers", "1.0", "toy"] == 2


def test_workers_that_die_again_and_again_leave_no_files(worker, port, tmp_path):
    last = worker()
    sizes = []
    for round in range(1, 6):
        one = worker()
        one.count("requests", 1, "false", "ok")
        one.kill()
        assert requests_total(port) == round
        sizes.append(len(list(tmp_path.glob("*.db"))))
    assert sizes[1:] == sizes[:-1], "what they counted is in one file"
    last.count("requests", 1, "false", "ok")
    assert requests_total(port) == 6


def test_a_file_cut_short_stops_no_scrape(worker, port, tmp_path):
    one = worker()
    one.count("requests", 2, "false", "ok")
    (tmp_path / f"counter_{os.getpid()}.db").touch()  # a living process that has just begun
    (tmp_path / "counter_999999.db").touch()  # one that was killed just then
    assert requests_total(port) == 2
    assert not (tmp_path / "counter_999999.db").exists()


def test_many_scrapes_at_once_and_silent_connections(worker, port):
    one = worker(freeze_after=1)
    look(one, (3, 3), 5)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: scrape(port)["evidence_maps_total", "1.0", "cats", "toy"], range(40)))
    finally:
        for connection in silent:
            connection.close()
    assert set(found) == {5.0}


@pytest.mark.parametrize("group", ["x" * 1000, "../../etc", "cats/dogs"], ids=["long", "dots", "slash"])
def test_names_of_groups_may_be_anything(worker, port, group, tmp_path):
    one = worker(freeze_after=1)
    one.count("evidence", 1, group, "3", "3")
    one.count("evidence_maps", 1, group)
    assert scrape(port)["evidence_similarity_ratio", *sorted(("1.0", group, "toy"))] == pytest.approx(1)
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"cats": [[1, 2]]}', b'{"cats": "x"}'])
def test_a_reference_that_is_none_is_refused(tmp_path, content):
    with pytest.raises(SetupError, match=r"^The archive's reference\.json is not one"):
        exporter.keep_reference(tmp_path, "toy", "1.0", content)


def test_what_was_not_counted_yet_is_zero(worker, port):
    worker()
    assert requests_total(port) == 0


def look(one: Worker, cell: tuple[int, int], maps: int) -> None:
    one.count("evidence", maps, "cats", *map(str, cell))
    one.count("evidence_maps", maps, "cats")


def test_the_first_maps_become_the_reference_and_a_shift_shows(worker, port):
    one, two = worker(freeze_after=10), worker(freeze_after=10)
    look(one, (3, 3), 6)
    assert ("evidence_similarity_ratio", "1.0", "cats", "toy") not in scrape(port)
    look(two, (3, 3), 6)
    assert scrape(port)["evidence_similarity_ratio", "1.0", "cats", "toy"] == pytest.approx(1)
    look(one, (0, 0), 120)
    for _ in range(10):
        assert scrape(port)["evidence_similarity_ratio", "1.0", "cats", "toy"] < 0.2
    assert scrape(port)["evidence_reference_ratio", "1.0", "3", "3", "cats", "toy"] == 1


def test_an_archives_own_reference_counts_from_the_first_map(worker, port, tmp_path):
    shares = np.zeros((7, 7))
    shares[6, 6] = 1
    exporter.keep_reference(tmp_path, "toy", "1.0", exporter.dump({"cats": shares}))
    one = worker(freeze_after=1)
    look(one, (6, 6), 1)
    assert scrape(port)["evidence_similarity_ratio", "1.0", "cats", "toy"] == pytest.approx(1)
    look(one, (0, 0), 50)
    assert scrape(port)["evidence_similarity_ratio", "1.0", "cats", "toy"] < 0.1


def test_a_port_that_is_taken_stops_no_worker_and_is_used_once_it_is_free(tmp_path, port, capfd):
    with socket.create_server(("127.0.0.1", port)):
        one = Worker(tmp_path, port)
        one.count("requests", 1, "false", "ok")
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert requests_total(port) == 1
    finally:
        one.kill()
    said = capfd.readouterr().err
    assert f"no metrics, because port {port} cannot be used (Address already in use)" in said
    assert f"metrics are on port {port} again" in said


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_folder_is_the_one_given_or_that_of_the_parent(monkeypatch, tmp_path):
    monkeypatch.setenv(exporter.FOLDER, str(tmp_path / "given"))
    assert exporter.share() == tmp_path / "given"
    assert (tmp_path / "given").is_dir()
    monkeypatch.delenv(exporter.FOLDER)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert exporter.share().name == f"camserve-metrics-{os.getppid()}"
