"""A real Prometheus with the shipped rules watches a running service: everything is scraped, recorded and shown."""

from __future__ import annotations

import math
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from service import CAT, COFFEE, EGYPTIAN_CAT, Service, packed, serving

from monitoring.promql import CONFIG, rules

pytestmark = [pytest.mark.live, pytest.mark.tool("prometheus")]

SETTINGS = {
    "CAMSERVE_REFERENCE_MAPS": "10",
    "CAMSERVE_VERIFY_SHARE": "0.5",
    "CAMSERVE_SHED_AFTER_MS": "60000",
}
"""A reference after ten maps, half of the plain maps verified, and nothing shed but what says it waited a minute."""

CHOSEN = {"$model": "classifier", "$version": ".*", "$group": ".*", "$__rate_interval": "15s"}

MAY_BE_EMPTY = {
    "Memory on the GPU": "there may be none",
    "Use of the GPU": "there may be none",
    "Alerts": "nothing has to fire",
}
"""Panels without data, and why. All others have some after a few requests of each kind."""

EMPTY_MAP = f"?explain=true&polarity=negative&classes={EGYPTIAN_CAT}"
"""No cell of the cat's picture speaks against the cat."""

TRAFFIC = (
    ("?explain=true&classes=top:2&maps=overlay,grid", CAT, 200),
    ("?explain=true&verify=true", COFFEE, 200),
    ("?explain=true&method=layercam", COFFEE, 200),
    ("?explain=true&contrast=runner_up", CAT, 200),
    (EMPTY_MAP, CAT, 200),
    ("?opacity=9", CAT, 400),
    ("", b"no picture", 415),
    ("", CAT, 200),
    ("", COFFEE, 200),
)
"""Path, body and status: plain and explained, one and two methods, a low margin (the cat), an empty map, errors."""


class Prometheus:
    """A Prometheus of its own that watches a stack every second; its files lie in `folder`."""

    def __init__(self, folder: Path, stack: Any) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        places = {
            "torchserve:8083": f"127.0.0.1:{stack.ports.scrape}",
            "torchserve:8082": f"127.0.0.1:{stack.ports.metrics}",
            "localhost:9090": self.address,
            ": 15s": ": 1s",
        }
        config = (CONFIG / "prometheus.yml").read_text()
        for old, new in places.items():
            assert old in config
            config = config.replace(old, new)
        (folder / "prometheus.yml").write_text(config)
        for file in ("recording.yml", "alerts.yml"):
            shutil.copy(CONFIG / file, folder)

    @contextmanager
    def running(self) -> Iterator[Prometheus]:
        command = [
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.address}",
        ]
        with (self.folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as self.process:
            try:
                until(self.ready, 30, lambda: "Prometheus does not start")
                yield self
            finally:
                self.process.terminate()

    def ready(self) -> bool:
        try:
            return requests.get(f"http://{self.address}/-/ready", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def get(self, path: str, **asked: str) -> Any:
        answer = requests.get(f"http://{self.address}/api/v1/{path}", params=asked, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def has(self, expr: str) -> bool:
        """Whether there is an answer that is not only NaN."""
        return any(not math.isnan(float(series["value"][1])) for series in self.get("query", query=expr)["result"])

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> dict[str, str]:
        return {target["labels"]["job"]: target["health"] for target in self.get("targets")["activeTargets"]}

    def firing(self) -> set[tuple[str, str]]:
        """Names of the alerts that fire, with their job."""
        alerts = [alert for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]
        return {(alert["labels"]["alertname"], alert["labels"].get("job", "")) for alert in alerts}

    def hurry(self) -> None:
        """Go on with impatient rules."""
        for file in ("recording.yml", "alerts.yml"):
            (self.folder / file).write_text(impatient((CONFIG / file).read_text()))
        self.process.send_signal(signal.SIGHUP)

        def loaded() -> bool:
            return all(rule.get("duration", 0) <= 2 for rule in self.rules())

        until(loaded, 10, lambda: "Prometheus refuses the changed rules")


def until(done: Callable[[], bool], seconds: float, complaint: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.2)


def impatient(rules: str) -> str:
    """Rules that wait two seconds, and look back ten, where they would wait and look back for minutes."""
    rules, waits = re.subn(r"\bfor: \d+m\b", "for: 2s", rules)
    rules, windows = re.subn(r"\[(5|15)m\]", "[10s]", rules)
    assert waits + windows
    return rules


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    with serving(packed(tmp_path_factory.mktemp("classifier")), "classifier", **SETTINGS) as stack:
        yield Service(stack)


@pytest.fixture(scope="module")
def prometheus(service, tmp_path_factory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), service.stack).running() as prometheus:
        yield prometheus


def filled(expr: str) -> str:
    """A query of the dashboard with its choices made."""
    for name, value in CHOSEN.items():
        expr = expr.replace(name, value)
    return expr


def empty_panels(prometheus: Prometheus, dashboard: dict[str, Any]) -> dict[str, list[str]]:
    """Queries without data, by panel."""
    asked = [
        (panel["title"], filled(target["expr"])) for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    empty: dict[str, list[str]] = {}
    for title, expr in asked:
        if not prometheus.has(expr):
            empty.setdefault(title, []).append(expr)
    return empty


def test_every_target_is_up_every_rule_is_healthy_and_every_panel_has_data(service, prometheus, dashboard):
    deadline = time.monotonic() + 60
    while True:
        for path, data, status in TRAFFIC:
            assert service.ask(path, data=data).status == status
        empty = {
            title: exprs for title, exprs in empty_panels(prometheus, dashboard).items() if title not in MAY_BE_EMPTY
        }
        if not empty:
            break
        assert time.monotonic() < deadline, empty
    assert prometheus.targets() == {"camserve": "up", "torchserve": "up", "prometheus": "up"}
    loaded = prometheus.rules()
    assert [(rule["name"], rule["health"], rule.get("lastError")) for rule in loaded if rule["health"] != "ok"] == []
    names = {kind: [rule["name"] for rule in loaded if rule["type"] == kind] for kind in ("recording", "alerting")}
    assert sorted(names["alerting"]) == sorted(rule["alert"] for rule in rules("alerts.yml"))
    assert sorted(names["recording"]) == sorted(rule["record"] for rule in rules("recording.yml"))


def test_a_panel_without_data_is_noticed(prometheus):
    panels = [
        {"title": title, "targets": [{"expr": expr}]}
        for title, expr in (("a", "camserve_wishes"), ("b", "vector(0) / 0"))
    ]
    assert empty_panels(prometheus, {"panels": panels}) == {"a": ["camserve_wishes"], "b": ["vector(0) / 0"]}
    assert empty_panels(prometheus, {"panels": [{"title": "c", "targets": [{"expr": 'up{job="camserve"}'}]}]}) == {}


def test_panels_that_may_be_empty_are_on_the_dashboard(dashboard):
    assert {panel["title"] for panel in dashboard["panels"]} >= MAY_BE_EMPTY.keys()


def fires_and_clears(prometheus: Prometheus, cause: Callable[[], object], cure: Callable[[], object], *alerts) -> None:
    """The alerts fire while the cause goes on, which is called again and again, and clear some time after the cure."""
    # What was sent before may have made them fire already.
    until(lambda: not prometheus.firing() & set(alerts), 30, lambda: f"{prometheus.firing()} fire from the start")

    def all_fire() -> bool:
        cause()
        return prometheus.firing() >= set(alerts)

    until(all_fire, 30, lambda: f"only {prometheus.firing()} fire, and not all of {alerts}")
    cure()
    until(lambda: not prometheus.firing() & set(alerts), 60, lambda: f"{prometheus.firing()} still fire")


def shed(service: Service) -> None:
    """An explanation given up: past the gateway a client says itself when its request began."""
    began = {"X-Request-Start": f"t={int((time.time() - 600) * 1e3)}"}
    path = "/models/classifier/invoke?explain=true&method=xgradcam"
    assert service.ask(path, native=True, headers=began).json["explanation"] == {"status": "shed"}


def shown(prometheus: Prometheus, dashboard: dict[str, Any], title: str, label: str) -> set[str]:
    """The lines of a panel that are above zero, by a label."""
    (panel,) = (panel for panel in dashboard["panels"] if panel["title"] == title)
    (target,) = panel["targets"]
    lines = prometheus.get("query", query=filled(target["expr"]))["result"]
    return {line["metric"][label] for line in lines if float(line["value"][1]) > 0}


def kill_a_worker(service: Service) -> None:
    """End one of the service's own workers; TorchServe starts another."""
    for process in psutil.process_iter(["cmdline"]):
        ours = "model_service_worker" in " ".join(process.info["cmdline"] or [])
        if ours and str(service.stack.state) in " ".join(process.environ().values()):
            return process.kill()
    return pytest.fail("there is no worker")


def test_alerts_fire_and_clear(service, prometheus, dashboard):
    def start() -> None:
        service.stack.start()
        service.stack.wait_ready()

    def empty_map() -> None:
        assert service.ask(EMPTY_MAP).explained["status"] == "empty_map"

    prometheus.hurry()
    fires_and_clears(prometheus, empty_map, lambda: None, ("EmptyMaps", ""))

    def while_shedding() -> None:
        assert "shed" in shown(prometheus, dashboard, "Explanations by what became of them", "status")
        assert "xgradcam" not in shown(prometheus, dashboard, "Explanations by method", "method")

    fires_and_clears(prometheus, lambda: shed(service), while_shedding, ("ExplainShedding", ""))
    kill_a_worker(service)
    fires_and_clears(prometheus, lambda: None, lambda: None, ("WorkersMissing", ""))
    fires_and_clears(prometheus, service.stack.stop, start, ("TargetDown", "camserve"), ("TargetDown", "torchserve"))
    assert prometheus.targets() == {"camserve": "up", "torchserve": "up", "prometheus": "up"}
