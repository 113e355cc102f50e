"""The scrape endpoint: one port that every worker of a TorchServe listens on, and each answers for all.

prometheus_client keeps each worker's numbers in files of a common folder, so counts survive a worker's death and no
scrape depends on one worker. What needs the sum of all, the similarity of evidence to its reference, is worked out when
it is asked for.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import numpy as np
import orjson

from camserve.drift import CELLS, Shares, similarity
from camserve.errors import SetupError

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client looks at this variable once, when it is first imported."""

_log = logging.getLogger(__name__)
_SMALLEST_FILE = 8
"""Bytes; a worker that has just begun, or was killed just then, has less."""

_SCRAPE_TIMEOUT = 10
"""Seconds that a scraper may stay silent."""

_ANOTHER_TRY = 5
"""Seconds until a port that something else had is tried again."""

_Owner = tuple[str, str, str]
"""Model, version and class group."""


def share() -> Path:
    """Decide on the common folder of this TorchServe's workers, before prometheus_client is imported.

    It is the one in the environment, else a folder named after the process that started this one.
    """
    given = os.environ.get(FOLDER)
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"camserve-metrics-{os.getppid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not given and folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to someone else")
    os.environ[FOLDER] = str(folder)
    return folder


def forget_the_dead(folder: Path) -> None:
    """Drop the gauges of workers that are gone, and fold what they counted into one file, `..._0.db`.

    So the folder does not grow with every worker that dies, and a scrape does not take longer each time.
    """
    with _locked(folder):
        _forget(folder)


def _forget(folder: Path) -> None:
    for file in folder.glob("*_*.db"):
        kind, _, pid = file.stem.rpartition("_")
        if pid in ("0", str(os.getpid())) or not pid.isdigit() or Path(f"/proc/{pid}").exists():
            continue
        try:
            _let_go(file, None if kind.startswith("gauge") else folder / f"{kind}_0.db")
        except OSError as error:  # its counts stay where they are, and are added up from there
            _log.error("camserve: the counts of a worker that is gone could not be folded (%s)", error.strerror)


def _let_go(file: Path, into: Path | None) -> None:
    """Remove a dead worker's file, once its counts are in the one of all that went before."""
    sums = _sums(file, into) if into and file.stat().st_size >= _SMALLEST_FILE else None
    gone = file.rename(file.with_suffix(".gone"))  # so that nothing counts twice, whatever happens now
    if into and sums:
        sums.replace(into)
    gone.unlink()


def _sums(file: Path, into: Path) -> Path:
    """A file beside `into` with the counts of both."""
    from camserve.counts import Counts

    scratch = into.with_suffix(".new")
    scratch.unlink(missing_ok=True)  # of one that was killed on the way
    try:
        if into.exists():
            shutil.copy(into, scratch)
        sums, counted = Counts(str(scratch)), Counts(str(file), read_mode=True)
        for key, value, stamp in counted.read_all_values():  # type: ignore[no-untyped-call]
            sums.write_value(key, sums.read_value(key)[0] + value, stamp)  # type: ignore[no-untyped-call]
        counted.close()  # type: ignore[no-untyped-call]
        sums.close()  # type: ignore[no-untyped-call]
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    return scratch


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def keep_reference(folder: Path, model: str, version: str, reference: bytes) -> None:
    """Put an archive's own reference where every worker finds it.

    Raises:
        SetupError: it is none.
    """
    if not _is_reference(reference):
        raise SetupError("The archive's reference.json is not one: write it with `camserve reference`.")
    _keep(_reference_file(folder, model, version), reference)


def forget_reference(folder: Path, model: str, version: str) -> None:
    """An archive without a reference takes the place of one that had it."""
    _reference_file(folder, model, version).unlink(missing_ok=True)


class Exposition:
    """A collector of everything the workers counted, and of what follows from it."""

    def __init__(self, folder: Path, freeze_after: int) -> None:
        """`freeze_after`: where a model came without a reference, a group's first so many maps become it."""
        self._folder = folder
        self._freeze_after = freeze_after

    def collect(self) -> Iterator[object]:
        """Metric families, as prometheus_client wants them."""
        from prometheus_client.multiprocess import MultiProcessCollector

        with _locked(self._folder):
            _forget(self._folder)
            files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size >= _SMALLEST_FILE]
            families = list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]
        yield from families
        try:
            yield from list(self._compared(families))
        except Exception:
            _log.exception("camserve: the evidence could not be compared")

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
        early = _reference_file(self._folder, model, version, group)
        found = _read(early)
        if found is None and maps >= self._freeze_after:
            _keep(early, dump({group: shares / maps}))
            found = _read(early)
        return None if found is None else found.get(group)


def dump(reference: dict[str, Shares]) -> bytes:
    """A reference as it lies in an archive: for each group 7 rows of 7 numbers that sum to 1."""
    return orjson.dumps({group: shares.tolist() for group, shares in reference.items()})


def serve(exposition: Exposition, address: str, port: int) -> None:
    """Answer scrapes in a thread, on a port that other workers may listen on too.

    Where something else has the port, it is tried again until that is gone; what is counted meanwhile is not lost.
    """
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry()
    registry.register(exposition)  # type: ignore[arg-type]
    app = make_wsgi_app(registry)
    server = _listening(address, port, app)

    def run() -> None:
        own = server
        while own is None:
            time.sleep(_ANOTHER_TRY)
            own = _listening(address, port, app, say=False)
        own.serve_forever()

    threading.Thread(target=run, name="camserve-metrics", daemon=True).start()


def _listening(address: str, port: int, app: Any, say: bool = True) -> WSGIServer | None:
    """None where the port cannot be used."""
    try:
        server = _Server((address, port), _Quiet)
    except OSError as error:
        if say:
            _log.error(
                "camserve: no metrics, because port %d cannot be used (%s); it is tried again every %d seconds",
                *(port, error.strerror, _ANOTHER_TRY),
            )
        return None
    server.set_app(app)
    if not say:
        _log.warning("camserve: metrics are on port %d again", port)
    return server


class _Server(ThreadingMixIn, WSGIServer):
    allow_reuse_port = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away is no news."""


class _Quiet(WSGIRequestHandler):
    timeout = _SCRAPE_TIMEOUT

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


def _reference_file(folder: Path, *owner: str) -> Path:
    """One file for each model and version, or class group of one; names may be of any length and letters."""
    return folder / f"reference-{hashlib.sha256(chr(0).join(owner).encode()).hexdigest()[:32]}.json"


def _keep(file: Path, reference: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
        try:
            scratch.write(reference)
            scratch.flush()
            Path(scratch.name).replace(file)
        except OSError:
            Path(scratch.name).unlink()
            raise


def _is_reference(content: bytes) -> bool:
    """Whether it maps groups to 7 x 7 finite numbers."""
    try:
        found = orjson.loads(content)
        return all(
            np.shape(rows) == (CELLS, CELLS) and bool(np.isfinite(np.asarray(rows, float)).all())
            for rows in found.values()
        )
    except (AttributeError, TypeError, ValueError):
        return False


def _read(file: Path) -> dict[str, Shares] | None:
    try:
        return {group: np.asarray(rows) for group, rows in orjson.loads(file.read_bytes()).items()}
    except FileNotFoundError:
        return None
