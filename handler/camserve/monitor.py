"""Lets a worker's pipeline be watched: metrics for Prometheus, and a line in the log for each request."""

from __future__ import annotations

import logging
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

from camserve import __version__, exporter
from camserve.groups import Groups
from camserve.journal import Journal
from camserve.model import gpu
from camserve.pipeline import Pipeline

REFERENCE = "reference.json"
"""Where an archive keeps the evidence its model should show; `camserve reference` writes it."""


def watch(pipeline: Pipeline, folder: Path, workers: int) -> None:
    """Record what the pipeline serves from now on.

    Args:
        pipeline: of this worker.
        folder: where the archive was unpacked.
        workers: how many of them serve this model.
    """
    settings, card = pipeline.settings, pipeline.card
    logging.getLogger("camserve").setLevel(settings.log_level.upper())
    pipeline.watchers.append(Journal(card, settings.log_share).write)
    shared = exporter.share()
    exporter.forget_the_dead(shared)
    if (folder / REFERENCE).is_file():
        exporter.keep_reference(shared, card.name, card.version, (folder / REFERENCE).read_bytes())
    from camserve.metrics import Metrics  # imports prometheus_client, which looks for the shared folder just once

    engine = pipeline.engine
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
        exporter.serve(
            exporter.Exposition(shared, settings.reference_maps), settings.scrape_address, settings.scrape_port
        )
