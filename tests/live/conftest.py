"""One TorchServe with the embedded model and one gateway for the whole session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from service import Service

from camserve.archive import Recipe, build
from camserve.model import embedded
from camserve.stack import Ports, Stack

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory):
    """The embedded model behind the gateway, configured as `make serve` does."""
    folder = tmp_path_factory.mktemp("classifier")
    config = yaml.safe_load((CONFIG / "model-config.yaml").read_text())
    recipe = Recipe("classifier", embedded.ARCHITECTURE, settings=config.pop("camserve"), server=config)
    build(recipe, folder / "store")
    with serving(folder, "classifier") as stack:
        yield Service(stack)


def serving(folder: Path, model: str) -> Stack:
    """A stack on free ports for folder/store/MODEL.mar, ready once entered."""
    return ReadyStack(folder / "store", model, f"{model}.mar", Ports.free(), CONFIG, folder / "state", os.environ)


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
