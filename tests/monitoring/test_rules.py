"""Recording rules and alerts: they parse, ask for what there is, and each alert is seen to fire and to clear."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from monitoring.promql import CONFIG, ROOT, asked, rules, samples, unknown

ALERTS = rules("alerts.yml")
RECORDED = rules("recording.yml")
TESTS = sorted((CONFIG / "tests").glob("*.yml"))

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=CONFIG, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.tool("promtool")
def test_prometheus_accepts_its_configuration():
    assert promtool("check", "config", "prometheus.yml").count("rules found") == 2


@pytest.mark.tool("promtool")
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules_do_what_they_say(file):
    promtool("test", "rules", str(file))


@each_alert
def test_an_alert_is_seen_to_fire_and_to_clear(alert):
    def minutes(time: str) -> int:
        found = re.fullmatch(r"(\d+)m", time)
        assert found, f"{time}: write minutes"
        return int(found[1])

    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            looks = [look for look in test["alert_rule_test"] if look["alertname"] == alert["alert"]]
            fires = [minutes(look["eval_time"]) for look in looks if look.get("exp_alerts")]
            clear = [minutes(look["eval_time"]) for look in looks if not look.get("exp_alerts")]
            if fires and clear and max(clear) > min(fires):
                return
    pytest.fail("no test makes it fire and clear")


def test_every_group_has_its_place_in_the_tests():
    groups = [
        group["name"]
        for file in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((CONFIG / file).read_text())["groups"]
    ]
    for file in TESTS:
        assert yaml.safe_load(file.read_text())["group_eval_order"] == groups, file.name


@each_alert
def test_an_alert_says_what_it_means_and_what_to_do(alert):
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert "$value" in alert["annotations"]["description"] or alert["alert"] == "TargetDown"
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
    section = (ROOT / "docs" / "operations.md").read_text().split(f"\n### {alert['alert']}\n")
    assert len(section) == 2, "docs/operations.md has no heading for it"
    text = section[1].split("\n#")[0]
    assert "**Means**" in text
    assert "**Do**" in text


@pytest.mark.parametrize("rule", [*RECORDED, *ALERTS], ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rule_asks_for_what_there_is(rule):
    assert unknown(rule["expr"]) == []


def test_recorded_names_tell_their_labels_and_nothing_is_recorded_for_nobody(dashboard_queries):
    used = {name for rule in [*RECORDED, *ALERTS] for name, _ in asked(rule["expr"])}
    used |= {name for expr in dashboard_queries for name, _ in asked(expr)}
    for name in {rule["record"] for rule in RECORDED}:
        assert re.fullmatch(r"[a-z_]+:camserve_[a-z_]+:[a-z0-9_]+", name)
        assert samples()[name] >= {"model", "version"}
        assert name in used


def test_a_made_up_metric_or_label_is_noticed():
    assert unknown("sum(rate(camserve_wishes_total[5m]))") == ["camserve_wishes_total"]
    assert unknown('camserve_requests_total{colour="red"}') == ["camserve_requests_total{colour}"]
    assert unknown("sum by (colour) (camserve_workers)") == ["by (colour)"]
    assert unknown('sum by (model) (rate(camserve_requests_total{outcome!="ok"}[5m] offset 3h)) > bool 1e3') == []
