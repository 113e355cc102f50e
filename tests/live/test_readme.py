"""The README's commands, run in order against the real stack."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

REPO = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```sh\n(.*?)^```", (REPO / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def test_the_readme_has_commands():
    assert sum("curl" in block for block in BLOCKS) >= 2


@pytest.mark.tool("curl")
def test_the_readmes_commands_work(service, tmp_path):
    (tmp_path / "handler").symlink_to(REPO / "handler")
    script = "\n".join(BLOCKS).replace("localhost:8080", service.gateway.removeprefix("http://"))
    # --fail: a refusal must not look like a success.
    script = script.replace("curl ", "curl --fail-with-body -sS ")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    pictures = list(tmp_path.glob("*.jpg"))
    assert pictures
    assert all(picture.read_bytes().startswith(b"\xff\xd8\xff") for picture in pictures)
