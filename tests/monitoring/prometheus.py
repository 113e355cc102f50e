"""A real Prometheus with the shipped configuration, watching a running stack."""

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

import requests

from monitoring.promql import CONFIG


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
