"""The metrics and the log of a running stack, as Prometheus and a person on call meet them."""

from __future__ import annotations

import json
import time

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from service import CAT, COFFEE

pytestmark = pytest.mark.live


def scrape(service) -> dict[str, float]:
    """Sums over all labels, by sample name, of all that is answered: the last batch is counted while it travels."""
    time.sleep(0.2)
    answer = requests.get(f"http://127.0.0.1:{service.stack.ports.scrape}/metrics", timeout=10)
    assert answer.status_code == 200
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def test_counts_equal_what_was_sent(service):
    before = scrape(service)
    for _ in range(5):
        assert service.ask(data=COFFEE).status == 200
    for _ in range(3):
        assert service.ask("?explain=true&classes=top:2").status == 200
    assert service.ask(data=b"no picture").status == 415
    assert service.ask(method="GET", data=None).status == 200
    after = scrape(service)

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more("camserve_requests_total") == 9
    assert more("camserve_explanations_total") == 6
    assert more("camserve_errors_total") == 1
    assert more("camserve_request_seconds_count") == 8, "a refusal is no prediction"
    assert more("camserve_batch_rows_sum") == 8
    assert more("camserve_evidence_maps_total") == 3
    assert more("camserve_evidence_total") == pytest.approx(3)
    assert more("camserve_queue_seconds_count") == 9
    assert after["camserve_workers"] == after["camserve_workers_expected"]


def test_every_worker_answers_for_all(service):
    service.ask()
    counts = {scrape(service)["camserve_requests_total"] for _ in range(20)}
    assert len(counts) == 1


def test_a_killed_worker_is_missed_and_comes_back_with_nothing_lost(service):
    before = scrape(service)
    workers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "model_service_worker" in " ".join(process.info["cmdline"] or [])
        and f"{service.stack.state}" in " ".join([*process.environ().values()])
    ]
    assert len(workers) == before["camserve_workers_expected"]
    workers[0].kill()
    deadline = time.monotonic() + 60
    missed = False
    while time.monotonic() < deadline:
        try:
            now = scrape(service)
        except requests.ConnectionError:
            continue  # it was in the killed worker's hands; the next one is answered
        missed = missed or now["camserve_workers"] < now["camserve_workers_expected"]
        assert now["camserve_requests_total"] >= before["camserve_requests_total"]
        if missed and now["camserve_workers"] == now["camserve_workers_expected"]:
            break
        time.sleep(0.2)
    else:
        pytest.fail("the worker was not missed, or did not come back")
    assert scrape(service)["camserve_requests_total"] == before["camserve_requests_total"]


def test_metrics_are_not_public(service):
    assert service.ask("/metrics", method="GET").status == 404
    for connection in psutil.net_connections("tcp"):
        if connection.status == "LISTEN" and connection.laddr.port == service.stack.ports.scrape:
            assert connection.laddr.ip == "127.0.0.1"


def test_the_log_has_one_line_a_request_with_the_id_the_client_got(service):
    reply = service.ask("?explain=true", data=CAT)
    log = service.stack.state / "logs" / "request_log.log"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        found = [line for line in lines if line["request_id"] == reply.json["request_id"]]
        if found:
            break
        time.sleep(0.1)
    (line,) = found
    assert (line["status"], line["explained"], line["pictures"][0]["width"]) == (200, True, 451)
    assert line["pictures"][0]["ms"]["forward"] > 0
    other = (service.stack.state / "logs" / "model_log.log").read_text()
    assert '{"request_id"' not in other


def test_bad_input_leaves_no_traceback(service):
    logs = service.stack.state / "logs"
    before = {log.name: log.stat().st_size for log in logs.glob("*.log")}  # a worker that died left one, for its reason
    bad = [service.ask(data=data) for data in (b"\xff\xd8\xff broken", b"no picture", b"{no JSON", b"")]
    bad += [service.ask(query) for query in ("?opacity=9", "?explain=true&layer=none", "?crop=9,9,999,999")]
    assert {400, 415, 422} == {reply.status for reply in bad}
    time.sleep(0.5)
    for log in logs.glob("*.log"):
        assert b"Traceback" not in log.read_bytes()[before.get(log.name, 0) :], log.name
