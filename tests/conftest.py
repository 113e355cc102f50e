"""Fixtures that several test modules share; the builders behind them are in pictures.py and toynets.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import psutil
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


MOST_STOLEN = 0.1
"""Of the processors' time. Where a virtual machine's host takes more away, deadlines are missed that users would have
seen kept: such a failure says nothing about camserve, and the test has to pass when it is run again."""

_host: dict[str, tuple[float, float]] = {}


def _times() -> tuple[float, float]:
    """Seconds that were stolen from all processors, and all their seconds; other systems tell of no theft."""
    times = psutil.cpu_times()
    return getattr(times, "steal", 0.0), sum(times)


def disturbed() -> bool:
    """Whether the host took more than MOST_STOLEN since the test began."""
    (stolen, whole), (after, end) = _host["at the beginning"], _times()
    return after - stolen > MOST_STOLEN * (end - whole)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fail are run again, twice at most, where it may have been the host."""
    for item in items:
        item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=10, condition=disturbed))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a tool that is not here, with the command that installs it."""
    _host["at the beginning"] = _times()
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
