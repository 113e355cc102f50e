"""The real TorchServe and the real gateway around the echo handler."""

import os
import subprocess
import sys
from pathlib import Path

from camserve.stack import Ports, Stack

HERE = Path(__file__).parent
CONFIG = HERE.parent / "config"
MODEL_CONFIG = """\
minWorkers: 1
maxWorkers: 1
batchSize: 1
maxBatchDelay: 1
responseTimeout: 5
startupTimeout: 60
jobQueueSize: {queue}
"""


def build_archive(folder: Path, queue: int = 4) -> None:
    """Writes folder/echo.mar; so many requests may wait for it."""
    folder.mkdir()
    (folder / "model-config.yaml").write_text(MODEL_CONFIG.format(queue=queue))
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "echo", "--version", "1.0"),
        *("--handler", str(HERE / "echo_handler.py"), "--config-file", str(folder / "model-config.yaml")),
        *("--export-path", str(folder)),
    ]
    # The archiver deletes the folder $TMPDIR/echo, so it gets a temporary folder of its own.
    (folder / "tmp").mkdir()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(folder / "tmp")})


def echo_stack(archives: Path, state: Path, **environment: str) -> Stack:
    """A stack on free ports, not started; `environment` is added to this process's."""
    return Stack(archives, "echo", "echo.mar", Ports.free(), CONFIG, state, {**os.environ, **environment})
