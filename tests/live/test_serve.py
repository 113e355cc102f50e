"""`camserve start` and `stop` with the embedded model, as `make start` and `make stop` run them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from service import CONFIG

from camserve.stack import Ports

pytestmark = pytest.mark.live


def test_start_explains_a_real_picture_and_stop_ends_everything(folder, tmp_path):
    ports = Ports.free()
    variables = {f"CAMSERVE_{name.upper()}_PORT": str(port) for name, port in asdict(ports).items()}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "camserve.cli", *arguments, f"--state={tmp_path / 'state'}"]
        done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    overlay = tmp_path / "overlay.jpg"
    said = run("start", f"--store={folder / 'store'}", f"--config={CONFIG}", f"--overlay={overlay}")
    try:
        assert "Waiting for the model" in said
        assert "285  Egyptian cat" in said
        assert f"What it looked at: {overlay}" in said
        assert f"http://127.0.0.1:{ports.gateway}/predictions/classifier?explain=true" in said
        pixels = np.asarray(Image.open(overlay)).astype(int)
        assert pixels.shape == (300, 451, 3)
        face, border = pixels[150:240, 135:280], pixels[:, :80]
        # Red over blue on the face is heat; the border, which the network did not see, is plain fur and wall.
        assert (face[..., 0] - face[..., 2]).mean() > 1.5 * (border[..., 0] - border[..., 2]).mean()
    finally:
        assert run("stop") == "Stopped.\n"
    ports.check_free()
