"""TorchServe's entry: rows and headers in, bytes and statuses out. The only file that knows TorchServe."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from camserve import machine
from camserve.errors import NetworkLost, SetupError
from camserve.imaging.guard import be_quiet
from camserve.monitor import prepare, watch
from camserve.pipeline import Pipeline
from camserve.records import Answer, Row
from camserve.settings import Settings

_log = logging.getLogger(__name__)


class CamserveHandler:
    """What TorchServe calls: `initialize` once, `handle` for every batch."""

    def initialize(self, context: Any) -> None:
        """Load the model.

        Raises:
            SetupError: the model must not be served; its sentence is logged as `camserve: ...`.
        """
        be_quiet()
        try:
            shared = prepare()  # first: a model's own module may import prometheus_client
            self.pipeline = _load(context)
            folder = Path(context.system_properties["model_dir"])
            watch(self.pipeline, folder, _setting(context, "minWorkers"), shared)
            machine.settle()
        except SetupError as error:
            _log.error("camserve: %s", error)
            raise

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One body a row; statuses and headers are set on the context.

        Raises:
            SystemExit: the worker is of no more use. TorchServe starts another, the gateway sends the batch again.
        """
        rows = [_row(fields, index, context) for index, fields in enumerate(data)]
        try:
            answers = self.pipeline.answer(rows)
        except NetworkLost as error:
            _log.exception("camserve: the worker ends")
            raise SystemExit(1) from error  # at once: what came back meanwhile would be given to it again
        for index, answer in enumerate(answers):
            _set_head(answer, index, context)
        return [answer.body for answer in answers]


def _load(context: Any) -> Pipeline:
    """The pipeline of the archive that TorchServe unpacked."""
    config = context.model_yaml_config or {}
    properties = context.system_properties
    settings = Settings.read(config.get("camserve") or {})
    threads = settings.threads or max(1, machine.cores() // _setting(context, "maxWorkers"))
    machine.prepare(threads)
    gpu = properties.get("gpu_id")
    model = context.manifest["model"]
    return Pipeline.load(
        Path(properties["model_dir"]),
        settings,
        name=str(model["modelName"]),
        version=str(model.get("modelVersion", "1.0")),
        threads=threads,
        gpu=None if gpu is None else int(gpu),
    )


def _setting(context: Any, name: str) -> int:
    """A number of workers from model-config.yaml."""
    return int((context.model_yaml_config or {}).get(name, 1))


def _row(fields: Mapping[str, Any], index: int, context: Any) -> Row:
    headers = context.get_all_request_header(index) or {}
    return Row(
        str(context.get_request_id(index)),
        {str(name): _bytes(value) for name, value in fields.items()},
        # TorchServe lists a form's fields among the headers, with a dict as value.
        {str(name).lower(): str(value) for name, value in headers.items() if not isinstance(value, dict)},
    )


def _bytes(value: Any) -> bytes:
    """A field as bytes; a TorchServe that decodes bodies itself hands over text and JSON.

    It takes more for JSON than others do, such as numbers of a hundred digits. Such a row is refused later, by itself.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return b"{"


def _set_head(answer: Answer, index: int, context: Any) -> None:
    """Status and headers; every phrase and header value is a constant of ours, as TorchServe needs."""
    context.set_response_status(code=answer.status, phrase=answer.phrase, idx=index)
    context.set_response_content_type(index, answer.mime)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)
