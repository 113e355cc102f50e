"""`make sbom` lists what pyproject.toml asks for, in the versions it asks for. Nothing is fetched."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]


@pytest.fixture(scope="module")
def bill(tmp_path_factory) -> dict:
    """What `make sbom` writes about the environment that runs the tests."""
    if not (ROOT / ".audit/installed").exists():
        pytest.skip("the program that writes it is not installed: make .audit/installed")
    file = tmp_path_factory.mktemp("sbom") / "sbom.json"
    done = ["--old-file=.venv/installed", "--old-file=.audit/installed"]
    names = [f"BIN={Path(sys.executable).parent}", f"SBOM={file}"]
    subprocess.run(["make", *done, *names, "sbom"], cwd=ROOT, check=True, capture_output=True, timeout=300)
    return json.loads(file.read_text())


def test_it_has_every_dependency_in_its_version(bill):
    versions = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    here = [one for one in ASKED if one.marker is None or one.marker.evaluate()]
    assert len(here) > 30
    missing = [str(one) for one in here if canonicalize_name(one.name) not in versions]
    assert not missing
    other = [str(one) for one in here if not one.specifier.contains(versions[canonicalize_name(one.name)])]
    assert not other


def test_it_is_about_camserve(bill):
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "camserve")
    asked = next(
        one["dependsOn"] for one in bill["dependencies"] if one["ref"] == bill["metadata"]["component"]["bom-ref"]
    )
    assert len(asked) > 15
