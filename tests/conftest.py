"""Fixtures that several test modules share; the builders behind them are in pictures.py and toynets.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import toynets
from camserve.pipeline import Pipeline


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A tiny network with seeded random weights and ten classes."""
    return toynets.loaded(_folder(tmp_path_factory))


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A network that answers to brightness."""
    return toynets.bright(_folder(tmp_path_factory))


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("archive")
