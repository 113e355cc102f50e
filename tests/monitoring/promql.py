"""What the rules and the dashboard ask for, and what there is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import Counter, Histogram

from camserve.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "prometheus"

BY_THE_EXPORTER = {
    "camserve_evidence_similarity_ratio": {"model", "version", "group"},
    "camserve_evidence_reference_ratio": {"model", "version", "group", "row", "column"},
}
"""Metrics that follow from others when they are asked for."""

OF_OTHERS = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity", "model", "version", "group", "flag", "job"},
    "Requests2XX": set(),
    "Requests4XX": set(),
    "Requests5XX": set(),
}
"""Series that Prometheus and TorchServe make."""

LEVELS = {"model": {"model", "version"}, "cell": {"row", "column"}}
"""Parts of a recorded name's level that stand for other labels than themselves."""

_WORDS = {"and", "or", "unless", "bool", "offset"}


@cache
def samples() -> dict[str, set[str]]:
    """Every name that can be asked for, with its labels."""
    known = {**BY_THE_EXPORTER, **OF_OTHERS}
    for name, row in METRICS.items():
        labels = {"model", "version", *row.labels}
        if row.kind is Histogram:
            known |= {f"camserve_{name}_{part}": labels for part in ("sum", "count")}
            known[f"camserve_{name}_bucket"] = labels | {"le"}
        else:
            known[f"camserve_{name}{'_total' if row.kind is Counter else ''}"] = labels
    return known | {rule["record"]: _level(rule["record"]) for rule in rules("recording.yml")}


def _level(name: str) -> set[str]:
    return set().union(*(LEVELS.get(part, {part}) for part in name.split(":")[0].split("_")))


def rules(file: str) -> list[dict[str, Any]]:
    """The rules of a file, without their groups."""
    return [rule for group in yaml.safe_load((CONFIG / file).read_text())["groups"] for rule in group["rules"]]


def asked(expr: str) -> list[tuple[str, set[str]]]:
    """The series an expression asks for, each with the labels it is chosen by."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'", '""', expr)
    bare = re.sub(r"\[[^]]*\]", "", bare)
    chosen = re.findall(r"([A-Za-z_:][\w:]*)\s*\{([^}]*)\}", bare)
    found = [(name, {part.split("=")[0].strip(" !") for part in labels.split(",")}) for name, labels in chosen]
    bare = re.sub(r"[A-Za-z_:][\w:]*\s*\{[^}]*\}", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"(?<![\w.:])([A-Za-z_:][\w:]*)(?!\s*\(|[\w:])", bare)
    return found + [(word, set()) for word in words if word not in _WORDS]


def grouped(expr: str) -> set[str]:
    """The labels an expression groups by."""
    lists = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expr)
    return {label.strip() for labels in lists for label in labels.split(",")}


def unknown(expr: str) -> list[str]:
    """What an expression asks for and there is not."""
    names = asked(expr)
    faults = [name for name, _ in names if name not in samples()]
    faults += [f"{name}{{{label}}}" for name, labels in names for label in labels - samples().get(name, labels)]
    there = set().union(*(samples().get(name, set()) for name, _ in names))
    return faults + [f"by ({label})" for label in grouped(expr) - there]
