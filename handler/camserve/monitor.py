"""Lets a worker's pipeline be watched: metrics for Prometheus, and a line in the log for each request.

Both are written while the answers travel, when a worker has nothing else to do.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

from camserve import __version__, exporter
from camserve.errors import SetupError
from camserve.groups import Groups
from camserve.journal import Journal
from camserve.model import gpu
from camserve.pipeline import Pipeline

REFERENCE = "reference.json"
"""Where an archive keeps the evidence its model should show; `camserve reference` writes it."""

_log = logging.getLogger(__name__)


_SENT = 0.002
"""Seconds until a batch's answers have left; TorchServe needs the interpreter for that."""


class Aside:
    """Does one thing at a time, in a moment, on a thread of its own; a second one waits until the first is done."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="camserve-watch")
        self._last: Future[None] | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        """Have it done; the caller goes on."""
        if self._last:
            self._last.result()
        self._last = self._pool.submit(self._do, work)

    def _do(self, work: Callable[[], None]) -> None:
        time.sleep(_SENT)
        work()


def prepare() -> Path | None:
    """Before the model is loaded: the folder in which all workers count, or None where there can be none."""
    try:
        return exporter.share()
    except OSError as error:
        _log.error("camserve: no metrics, because their folder cannot be used (%s)", error)
        return None


def watch(pipeline: Pipeline, folder: Path, workers: int, shared: Path | None) -> None:
    """Record what the pipeline serves from now on. What goes wrong with metrics stops no worker.

    Args:
        pipeline: of this worker.
        folder: where the archive was unpacked.
        workers: how many of them serve this model.
        shared: what `prepare` gave.

    Raises:
        SetupError: the archive's reference is none.
    """
    logging.getLogger("camserve").setLevel(pipeline.settings.log_level.upper())
    pipeline.tell = Aside()
    pipeline.watchers.append(Journal(pipeline.card, pipeline.settings.log_share).write)
    if shared is None:
        return
    try:
        _count(pipeline, folder, workers, shared)
    except SetupError:
        raise
    except Exception:
        _log.exception("camserve: no metrics")


def _count(pipeline: Pipeline, folder: Path, workers: int, shared: Path) -> None:
    settings, card, engine = pipeline.settings, pipeline.card, pipeline.engine
    exporter.forget_the_dead(shared)
    if (folder / REFERENCE).is_file():
        exporter.keep_reference(shared, card.name, card.version, (folder / REFERENCE).read_bytes())
    else:
        exporter.forget_reference(shared, card.name, card.version)
    from camserve import counts  # imports prometheus_client, which looks for the shared folder just once
    from camserve.metrics import Metrics

    counts.use()
    groups = Groups(settings.class_groups, card.labels)
    metrics = Metrics(card, groups, engine.default, partial(gpu.reading, pipeline.device))
    model = {
        "architecture": card.architecture,
        "layer": engine.default,
        "exact": str(engine.is_exact("gradcam", engine.default)).lower(),
        "device": pipeline.device.type,
    }
    software = {"camserve": __version__, "torch": version("torch"), "python": platform.python_version()}
    metrics.started(model, software, workers, settings.max_answer_bytes)
    pipeline.watchers.append(metrics.record)
    if settings.scrape_port:
        exposition = exporter.Exposition(shared, settings.reference_maps)
        exporter.serve(exposition, settings.scrape_address, settings.scrape_port)
