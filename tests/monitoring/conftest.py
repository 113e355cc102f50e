"""The dashboard, as it lies in its file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitoring.promql import ROOT

DASHBOARD = ROOT / "config" / "grafana" / "dashboards" / "camserve.json"


@pytest.fixture(scope="session")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


@pytest.fixture(scope="session")
def dashboard_queries(dashboard) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
