"""The servers that are compared, each a context manager that gives a running stack: ours, and TorchServe's own way.

All run one worker with two torch threads and form the same batches. The peers are asked without a gateway.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

import report
from camserve.archive import Recipe, build
from camserve.model import architectures, embedded
from camserve.settings import Preprocessing
from camserve.stack import Ports, Stack
from load import EXPLAINED, Client, Target
from photographs import SMALL, photographs

CORES = 2
BATCH = 8
SERVER = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": BATCH,
    "maxBatchDelay": 1,
    "responseTimeout": 600,
    "startupTimeout": 120,
    "jobQueueSize": 64,
}
"""TorchServe's own keys, for ours and the peers."""

SETTINGS: dict[str, Any] = {"threads": CORES, "shed_after_ms": 0}
"""Of every camserve that is measured: whatever the queue, what is asked for is done."""

UNSHED = "Shedding is off: every explanation that is asked for is made."
"""The same, for the text of a section."""

PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
}
"""Further settings by name; each is a server of its own."""


class Network(NamedTuple):
    """What is served; without a preprocessing, the library's."""

    architecture: str
    preprocessing: Preprocessing | None = None


RESNET, LITE = "ResNet-50", "EfficientNet-Lite0"
NETWORKS = {
    RESNET: Network("torchvision/resnet50", Preprocessing(resize=256, crop=224)),  # as the peers have it
    LITE: Network(embedded.ARCHITECTURE),
}

_HERE = Path(__file__).parent
_CONFIG = _HERE.parent / "config"
_READY_SECONDS = 600.0  # generous: the machine may be busy
_CAPTUM_BYTES = 64_000_000
_LIBGOMPS_OWN = "300000"  # what it takes where nobody says how long to spin; ours says it


def prepare() -> None:
    """Keep this process, and all that it will start, on two cores, and let SIGTERM stop the servers as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    allowed = sorted(os.sched_getaffinity(0))
    first = {_siblings(cpu): cpu for cpu in reversed(allowed)}
    os.sched_setaffinity(0, [*dict.fromkeys([*sorted(first.values()), *allowed])][:CORES])
    torch.set_num_threads(CORES)


def precisions() -> dict[str, dict[str, Any]]:
    """Those of `PRECISIONS` that this processor has arithmetic for."""
    return {name: one for name, one in PRECISIONS.items() if name != "bfloat16" or report.has_bfloat16()}


def ours(stack: Stack, query: str = "") -> Target:
    """Our predictions, through the gateway."""
    return Target(stack.ports.gateway, f"/predictions/{stack.model}{query}", _proof(query))


def direct(stack: Stack, query: str = "") -> Target:
    """The same without the gateway."""
    return Target(stack.ports.inference, f"/models/{stack.model}/invoke{query}", _proof(query))


def theirs(stack: Stack, page: str = "predictions") -> Target:
    """What a peer answers."""
    return Target(stack.ports.inference, f"/{page}/{stack.model}", b'"overlay": "' if "naive" in stack.model else b"")


@contextmanager
def camserve(
    network: str, folder: Path, name: str, settings: Mapping[str, Any] | None = None, **server: int
) -> Iterator[Stack]:
    """Ours, ready; `settings` and `server` are added to those that all have. `folder` is the run's own."""
    architecture, preprocessing = NETWORKS[network]
    recipe = Recipe(
        name,
        architecture,
        str(_weights(folder)) if network == RESNET else "DEFAULT",
        preprocessing=preprocessing,
        server={**SERVER, **server},
        settings={**SETTINGS, **(settings or {})},
    )
    build(recipe, folder)
    with Stack(folder, name, f"{name}.mar", Ports.free(), _CONFIG, folder / f"{name}-state", os.environ) as stack:
        stack.wait_ready(_READY_SECONDS)
        yield stack


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Stack]:
    """ResNet-50 on the same TorchServe: `stock` is its own image classifier, another is peers/NAME.py; ready."""
    handler = "image_classifier" if name == "stock" else str(_HERE / "peers" / f"{name}.py")
    _pack(name, handler, folder)
    # The largest answer is captum's: a number in text for every colour of every pixel.
    threads = {"OMP_NUM_THREADS": str(CORES), "GOMP_SPINCOUNT": _LIBGOMPS_OWN}
    environment = {**os.environ, **threads, "TS_MAX_RESPONSE_SIZE": str(_CAPTUM_BYTES)}
    with Stack(folder, name, f"{name}.mar", Ports.free(), _CONFIG, folder / f"{name}-state", environment) as stack:
        _wait(stack)
        yield stack


def _proof(query: str) -> bytes:
    return EXPLAINED if "explain=true" in query else b'"predictions":['


def _siblings(cpu: int) -> str:
    """The processors that share a core with this one."""
    file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return file.read_text() if file.exists() else str(cpu)


def _weights(folder: Path) -> Path:
    """Seeded random weights of ResNet-50, the same for everyone."""
    file = folder / "resnet50.pt"
    if not file.exists():
        torch.manual_seed(0)
        torch.save(architectures.build(NETWORKS[RESNET].architecture, 1000, folder).state_dict(), file)
    return file


def _pack(name: str, handler: str, folder: Path) -> None:
    """Write folder/NAME.mar as TorchServe's documents say."""
    parts = folder / f"{name}-parts"
    (parts / "tmp").mkdir(parents=True)
    (parts / "model-config.yaml").write_text(yaml.safe_dump(SERVER))
    labels = dict(enumerate(embedded.imagenet_labels()))
    (parts / "index_to_name.json").write_text(json.dumps(labels))
    beside = [parts / "index_to_name.json"] + [_HERE / "peers" / "naive.py"] * (name == "naive_batched")
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", name, "--version", "1.0"),
        *("--model-file", str(_HERE / "peers" / "resnet50.py"), "--serialized-file", str(_weights(folder))),
        *("--handler", handler, "--extra-files", ",".join(map(str, beside))),
        *("--config-file", str(parts / "model-config.yaml"), "--export-path", str(folder)),
    ]
    # The archiver empties a folder of the model's name in TMPDIR.
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(parts / "tmp")})


def _wait(stack: Stack) -> None:
    """Return once the peer predicts.

    Raises:
        RuntimeError: it does not, with the end of its log.
    """
    deadline, picture = time.monotonic() + _READY_SECONDS, photographs(SMALL)[0]
    while True:
        try:
            Client(stack.ports.inference).ask(theirs(stack), picture)
            return
        except (OSError, HTTPException, RuntimeError) as error:
            if time.monotonic() > deadline:
                log = (stack.logs / "model_log.log").read_text()[-2000:]
                raise RuntimeError(f"{stack.model} is not ready: {error}\n{log}") from error
            time.sleep(1)
