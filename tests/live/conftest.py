"""One TorchServe with the embedded model and one gateway for the whole session."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from service import CONFIG, Service, serving

from camserve.archive import Recipe, build
from camserve.model import embedded


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store/ holds the embedded model, configured as `make serve` does."""
    folder = tmp_path_factory.mktemp("classifier")
    config = yaml.safe_load((CONFIG / "model-config.yaml").read_text())
    recipe = Recipe("classifier", embedded.ARCHITECTURE, settings=config.pop("camserve"), server=config)
    build(recipe, folder / "store")
    return folder


@pytest.fixture(scope="session")
def service(folder: Path):
    """The embedded model behind the gateway."""
    with serving(folder, "classifier") as stack:
        yield Service(stack)
