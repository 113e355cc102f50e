"""One TorchServe with the embedded model and one gateway for the whole session."""

from __future__ import annotations

from pathlib import Path

import pytest
from service import Service, packed, serving


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store/ holds the embedded model, configured as `make serve` does."""
    return packed(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def service(folder: Path):
    """The embedded model behind the gateway."""
    with serving(folder, "classifier") as stack:
        yield Service(stack)
