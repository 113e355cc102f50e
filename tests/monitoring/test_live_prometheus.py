"""A real Prometheus with the shipped rules watches a running service: everything is scraped, recorded and shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from service import CAT, COFFEE, EGYPTIAN_CAT, Service, packed, serving

from monitoring.prometheus import Prometheus, until
from monitoring.promql import rules

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
