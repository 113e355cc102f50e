"""The dashboard: its file is what the script writes, and every query asks for what there is."""

from __future__ import annotations

import json
import re
import runpy
import subprocess

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import Counter

from camserve.metrics import METRICS
from monitoring.conftest import DASHBOARD
from monitoring.promql import BY_THE_EXPORTER, ROOT, unknown

GRAFANA = ROOT / "config" / "grafana"
OPERATIONS = ROOT / "docs" / "operations.md"
WIDTH = 24


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_file_is_what_the_script_writes():
    written = runpy.run_path(str(GRAFANA / "dashboard.py"))["text"]()
    assert written == DASHBOARD.read_text(), "run `make dashboard`"


def test_grafanas_own_types_read_it_and_lose_nothing(dashboard):
    def kept(written, read):
        if isinstance(written, dict):
            return all(name in read and kept(value, read[name]) for name, value in written.items())
        if isinstance(written, list):
            return len(written) == len(read) and all(map(kept, written, read))
        return written == read

    register_default_plugins()
    assert kept(dashboard, json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder)))


def test_every_query_asks_for_what_there_is(dashboard):
    choices = [choice["query"]["query"] for choice in dashboard["templating"]["list"] if choice["type"] == "query"]
    values = [re.fullmatch(r"label_values\((.*), (\w+)\)", choice) for choice in choices]
    assert [unknown(f"count by ({value[2]}) ({value[1]})") for value in values] == [[], [], []]
    for panel in panels(dashboard):
        for target in panel["targets"]:
            assert unknown(target["expr"]) == [], panel["title"]


@pytest.mark.tool("promtool")
def test_every_query_parses(dashboard_queries, tmp_path):
    def filled(expr: str) -> str:
        return re.sub(r"\$\w+", "x", expr.replace("$__rate_interval", "1m"))

    rules = [
        {"record": "asked", "expr": filled(expr), "labels": {"n": str(n)}} for n, expr in enumerate(dashboard_queries)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_query_uses_only_choices_that_are_offered(dashboard):
    offered = {choice["name"] for choice in dashboard["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) <= offered


def test_panels_have_a_title_of_their_own_a_description_a_unit_and_names_for_their_lines(dashboard):
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] in ("timeseries", "stat", "heatmap"):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_panels_fill_the_width_and_do_not_overlap(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len(taken) == WIDTH * (max(y for _, y in taken) + 1)


def test_plain_and_explained_times_stand_side_by_side(dashboard):
    plain, explained = (
        next(panel for panel in panels(dashboard) if panel["title"] == f"Time to answer, {kind}")["gridPos"]
        for kind in ("plain", "explained")
    )
    assert (plain["y"], plain["x"] + plain["w"]) == (explained["y"], explained["x"])


def test_the_documents_tell_of_every_panel_in_its_row(dashboard):
    text = OPERATIONS.read_text().split("\n## Dashboard\n")[1].split("\n## ")[0]
    stated = re.findall(r"^(?:### (.+)|\| ([^|]+?) \| [^|]+ \| [^|]+ \|)$", text, re.MULTILINE)
    told = [heading or panel for heading, panel in stated if panel not in ("Panel", "---")]
    assert told == [panel["title"] for panel in dashboard["panels"]]


def test_grafana_is_told_where_dashboard_and_data_are():
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    prometheus = yaml.safe_load((ROOT / "config" / "prometheus" / "prometheus.yml").read_text())
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "camserve.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_the_documents_list_every_metric():
    text = OPERATIONS.read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(camserve_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    stated = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    there = {
        f"camserve_{name}{'_total' if row.kind is Counter else ''}": (row.kind.__name__.lower(), set(row.labels))
        for name, row in METRICS.items()
    }
    there |= {name: ("gauge", labels - {"model", "version"}) for name, labels in BY_THE_EXPORTER.items()}
    assert stated == there
