"""A running stack as a client sees it; every JSON answer is held against the one schema."""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import requests
import yaml
from PIL import Image

import camserve
from camserve.archive import Recipe, build
from camserve.model import embedded
from camserve.stack import Ports, Stack

PACKAGE = Path(camserve.__file__).parent
CAT = (PACKAGE / "page" / "samples" / "cat.jpg").read_bytes()
COFFEE = (PACKAGE / "page" / "samples" / "coffee.jpg").read_bytes()
EGYPTIAN_CAT, TIGER_CAT, TABBY, ESPRESSO = 285, 282, 281, 967
TIMEOUT = 60
CONFIG = Path(__file__).parents[2] / "config"

_VALIDATOR = jsonschema.Draft202012Validator(json.loads((PACKAGE / "schema.json").read_text()))


def validated(answer: Any) -> Any:
    """The answer, if it is what the schema says."""
    fault = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(answer))
    assert fault is None, f"{fault.json_path}: {fault.message[:500]}"
    return answer


@dataclass(frozen=True)
class Reply:
    """Status, headers and body of an answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body, valid by the schema and without NaN."""
        assert self.headers["content-type"] == "application/json"

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is no JSON")

        return validated(json.loads(self.body, parse_constant=refuse))

    @property
    def top(self) -> int:
        """The likeliest class."""
        assert self.status == 200, self.body[:500]
        return self.json["predictions"][0]["class_id"]

    @property
    def explained(self) -> dict[str, Any]:
        """The first explained class."""
        assert self.status == 200, self.body[:500]
        return self.json["explanation"]["classes"][0]

    @property
    def error(self) -> tuple[int, str, str]:
        """Status, type and message, which agree with each other."""
        answer = self.json
        assert answer["code"] == self.status
        return self.status, answer["type"], answer["message"]


class Service:
    """HTTP through the gateway, or straight to TorchServe."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.gateway = stack.url
        self.native = f"http://127.0.0.1:{stack.ports.inference}"
        self.model = f"/predictions/{stack.model}"

    def ask(self, path: str = "", data: Any = CAT, method: str = "POST", native: bool = False, **more: Any) -> Reply:
        """A request; `path` beginning with ? is a query on the model's own path."""
        path = path if path.startswith("/") else self.model + path
        url = (self.native if native else self.gateway) + path
        answer = requests.request(method, url, data=data, timeout=TIMEOUT, **more)
        return Reply(answer.status_code, answer.headers, answer.content)


def b64(data: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(data).decode()


def pixels(picture: dict[str, Any]) -> np.ndarray:
    """The pixels of a picture in an answer, whose size is as announced."""
    image = Image.open(io.BytesIO(base64.b64decode(picture["data"], validate=True)))
    assert image.size == (picture["width"], picture["height"])
    assert Image.MIME[image.format] == picture["mime"]
    return np.asarray(image)


def grid(entry: dict[str, Any]) -> np.ndarray:
    """The map of an explained class in its own unit."""
    part = entry["grid"]
    data = np.frombuffer(base64.b64decode(part["data"], validate=True), "<f4")
    return data.reshape(part["shape"]) * part["scale"]


def packed(folder: Path) -> Path:
    """The folder, with the embedded model in its store/, configured as `make serve` does."""
    config = yaml.safe_load((CONFIG / "model-config.yaml").read_text())
    recipe = Recipe("classifier", embedded.ARCHITECTURE, settings=config.pop("camserve"), server=config)
    build(recipe, folder / "store")
    return folder


def serving(folder: Path, model: str, **environment: str) -> Stack:
    """A stack on free ports for folder/store/MODEL.mar, ready once entered.

    Unless `environment` says otherwise it sheds nothing: a slow machine must not make another answer of an explained
    one. test_overload.py is about what sheds.
    """
    seen = {**os.environ, "CAMSERVE_SHED_AFTER_MS": "0", **environment}
    return ReadyStack(folder / "store", model, f"{model}.mar", Ports.free(), CONFIG, folder / "state", seen)


class ReadyStack(Stack):
    """A stack that is waited for."""

    def __enter__(self):
        super().__enter__()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self
