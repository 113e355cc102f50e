"""The scrape endpoint: one port that every worker of a TorchServe listens on, and each answers for all.

prometheus_client keeps each worker's numbers in files of a common folder, so counts survive a worker's death and no
scrape depends on one worker. What needs the sum of all, the similarity of evidence to its reference, is worked out when
it is asked for.
"""

from __future__ import annotations

import logging
import os
import re
import socketserver
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import numpy as np
import orjson

from camserve.drift import CELLS, Shares, similarity

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client looks at this variable once, when it is first imported."""

_log = logging.getLogger(__name__)
_Owner = tuple[str, str, str]
"""Model, version and class group."""


def share() -> Path:
    """Decide on the common folder of this TorchServe's workers, before prometheus_client is imported.

    It is the one in the environment, else a folder named after the process that started this one.
    """
    folder = Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / f"camserve-metrics-{os.getppid()}")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER] = str(folder)
    return folder


def forget_the_dead(folder: Path) -> None:
    """Drop the gauges of workers that are gone; their counts stay."""
    for file in folder.glob("gauge_live*_*.db"):
        found = re.fullmatch(r"gauge_live\w+_(\d+)\.db", file.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            file.unlink(missing_ok=True)


def keep_reference(folder: Path, model: str, version: str, reference: bytes) -> None:
    """Put an archive's own reference where every worker finds it."""
    path = _reference_file(folder, model, version)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(reference)
    scratch.replace(path)


class Exposition:
    """A collector of everything the workers counted, and of what follows from it."""

    def __init__(self, folder: Path, freeze_after: int) -> None:
        """`freeze_after`: where a model came without a reference, a group's first so many maps become it."""
        self._folder = folder
        self._freeze_after = freeze_after

    def collect(self) -> Iterator[object]:
        """Metric families, as prometheus_client wants them."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        forget_the_dead(self._folder)
        collector = MultiProcessCollector(CollectorRegistry(), str(self._folder))  # type: ignore[no-untyped-call]
        families = list(collector.collect())  # type: ignore[no-untyped-call]
        yield from families
        yield from self._compared(families)

    def _compared(self, families: Iterable[object]) -> Iterator[object]:
        from prometheus_client.core import GaugeMetricFamily

        alike = GaugeMetricFamily(
            "camserve_evidence_similarity_ratio",
            "Cosine of the mean evidence since the start with its reference.",
            labels=("model", "version", "group"),
        )
        frozen = GaugeMetricFamily(
            "camserve_evidence_reference_ratio",
            "Mean share of evidence in each cell, as it should be.",
            labels=("model", "version", "group", "row", "column"),
        )
        for owner, (shares, maps) in _evidence(families).items():
            reference = self._reference(owner, shares, maps)
            if reference is None:
                continue
            alike.add_metric(owner, similarity(shares, reference))
            for row, column in np.ndindex(CELLS, CELLS):
                frozen.add_metric((*owner, str(row), str(column)), float(reference[row, column]))
        yield from (alike, frozen)

    def _reference(self, owner: _Owner, shares: Shares, maps: float) -> Shares | None:
        """The frozen mean of a group; taken from what was counted so far where there is none and that is enough."""
        model, version, group = owner
        known = _read(_reference_file(self._folder, model, version))
        if known is not None:
            return known.get(group)
        early = _reference_file(self._folder, model, f"{version}.{group}")
        found = _read(early)
        if found is None and maps >= self._freeze_after:
            keep_reference(self._folder, model, f"{version}.{group}", dump({group: shares / maps}))
            found = _read(early)
        return None if found is None else found.get(group)


def dump(reference: dict[str, Shares]) -> bytes:
    """A reference as it lies in an archive: for each group 7 rows of 7 numbers that sum to 1."""
    return orjson.dumps({group: shares.tolist() for group, shares in reference.items()})


def serve(exposition: Exposition, address: str, port: int) -> threading.Thread | None:
    """Answer scrapes in a thread, on a port that other workers may listen on too; None where that is impossible."""
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry()
    registry.register(exposition)  # type: ignore[arg-type]
    try:
        server = _Server((address, port), _Quiet)
    except OSError as error:
        _log.error("camserve: no metrics, because port %d cannot be used (%s)", port, error.strerror)
        return None
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, name="camserve-metrics", daemon=True)
    thread.start()
    return thread


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    allow_reuse_port = True
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""


def _evidence(families: Iterable[object]) -> dict[_Owner, tuple[Shares, float]]:
    """Summed evidence and number of maps of every group."""
    sums: dict[_Owner, Shares] = defaultdict(lambda: np.zeros((CELLS, CELLS)))
    maps: dict[_Owner, float] = {}
    for family in families:
        for sample in getattr(family, "samples", ()):
            labels = sample.labels
            if sample.name == "camserve_evidence_total":
                cell = int(labels["row"]), int(labels["column"])
                sums[labels["model"], labels["version"], labels["group"]][cell] = sample.value
            elif sample.name == "camserve_evidence_maps_total":
                maps[labels["model"], labels["version"], labels["group"]] = sample.value
    return {owner: (shares, maps[owner]) for owner, shares in sums.items() if maps.get(owner)}


def _reference_file(folder: Path, model: str, version: str) -> Path:
    name = re.sub(r"[^\w.-]", lambda found: f"%{ord(found[0]):x}", f"{model}-{version}")
    return folder / f"reference-{name}.json"


def _read(file: Path) -> dict[str, Shares] | None:
    try:
        return {group: np.asarray(rows) for group, rows in orjson.loads(file.read_bytes()).items()}
    except FileNotFoundError:
        return None
