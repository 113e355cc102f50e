"""Fixtures that several test modules share; the builders behind them are in pictures.py and toynets.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

import toynets
from camserve.pipeline import Pipeline


def pytest_addoption(parser: pytest.Parser) -> None:
    """The long forms of tests/reliability: `make chaos` and `make soak`."""
    parser.addoption(
        "--long", action="store_true", help="so many cases, requests and minutes as docs/reliability.md says"
    )


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long form is asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A tiny network with seeded random weights and ten classes."""
    return toynets.loaded(_folder(tmp_path_factory))


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A network that answers to brightness."""
    return toynets.bright(_folder(tmp_path_factory))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store/ holds the embedded model, configured as `make serve` does."""
    from service import packed

    return packed(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def service(folder: Path):
    """The embedded model behind the gateway: one TorchServe and one gateway for the whole session."""
    from service import Service, serving

    with serving(folder, "classifier") as stack:
        yield Service(stack)


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("archive")


TOOLS = {
    "chromium": "apt-get install chromium",
    "curl": "apt-get install curl",
    "openssl": "apt-get install openssl",
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
}
"""Programs that are not from PyPI, and what installs each."""

STRICT = os.environ.get("CAMSERVE_STRICT") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a tool that is not here, with the command that installs it."""
    for mark in item.iter_markers("tool"):
        (name,) = mark.args
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed: {TOOLS[name]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under STRICT=1 a skipped test is a failed one."""
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"STRICT=1 allows no skip: {report.longrepr[2]}"
    return report
