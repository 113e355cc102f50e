"""Model, weights, labels and settings to a .mar that runs on any TorchServe with the requirements installed.

And back: `opened` loads a model, from an archive or from its parts, without TorchServe.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from torch import Tensor

from camserve import machine
from camserve.errors import SetupError
from camserve.model import architectures, embedded
from camserve.model.labels import Labels
from camserve.model.load import fill, load_labels, state_dict
from camserve.pipeline import Pipeline
from camserve.settings import Preprocessing, Settings

SOURCE = Path(__file__).resolve().parent
"""The package itself, which travels in every archive."""

_ENTRY = SOURCE.parent / "camserve_handler.py"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into an archive.

    `architecture` is `timm/NAME`, `torchvision/NAME` or `PATH/FILE.py:CLASS`. `weights` is a state dict's
    path, `DEFAULT` for published ones, or `none` for random ones. `labels` is a text file, one name a line;
    None takes ImageNet's where the network has 1,000 classes. `preprocessing` None takes what the library
    publishes. `server` holds TorchServe's own keys (workers, batch size, delays), `settings` more of ours.
    """

    name: str
    architecture: str
    weights: str = "DEFAULT"
    labels: Path | None = None
    preprocessing: Preprocessing | None = None
    version: str = "1.0"
    server: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def build(recipe: Recipe, store: Path) -> Path:
    """Write `store/NAME.mar`, after its model was loaded and proven as a worker would.

    Raises:
        SetupError: a part is missing, does not fit, or a gate fails.
    """
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="camserve-") as scratch:
        content = Path(scratch) / "content"
        content.mkdir()
        config = _fill(content, recipe)
        machine.prepare(machine.cores())
        Pipeline.load(content, Settings.read(config["camserve"], {}), recipe.name, recipe.version)
        shutil.copytree(SOURCE, content / "camserve", ignore=shutil.ignore_patterns("__pycache__"))
        settings = Path(scratch) / "model-config.yaml"
        settings.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return _pack(recipe, content, settings, store, Path(scratch))


@contextmanager
def opened(recipe: Recipe) -> Iterator[Pipeline]:
    """The pipeline of a model, as a worker would load it, for as long as the block lasts.

    `recipe.architecture` may also be the path of an archive; its own weights, labels and settings are taken then.

    Raises:
        SetupError: a part is missing, does not fit, or a gate fails.
    """
    with tempfile.TemporaryDirectory(prefix="camserve-") as scratch:
        content = Path(scratch)
        if recipe.architecture.endswith(".mar"):
            name, version, config = _unpack(Path(recipe.architecture), content)
        else:
            name, version, config = recipe.name, recipe.version, _fill(content, recipe)
        settings = Settings.read(config.get("camserve") or {})
        settings = settings.model_copy(update={"explain_within_ms": 0})  # nobody else waits
        threads = settings.threads or machine.cores()
        machine.prepare(threads)
        yield Pipeline.load(content, settings, name, version, threads)


def holds(archive: Path, name: str) -> bool:
    """Whether there is such an archive with a file of that name in it."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return name in packed.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def put(archive: Path, name: str, content: bytes) -> None:
    """Add a file to an archive, in place of one of that name; the archive is whole at every moment.

    Raises:
        SetupError: there is no such archive, or no room for another.
    """
    if not archive.is_file():
        raise SetupError(f"There is no archive {str(archive)!r}: build it with `camserve archive`.")
    archive = archive.resolve()
    check_room(archive.parent, archive.stat().st_size + len(content))
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".camserve-") as folder:
        scratch = Path(folder) / archive.name
        with zipfile.ZipFile(archive) as old, zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                if entry.filename != name:
                    new.writestr(entry, old.read(entry))
            new.writestr(name, content)
        shutil.copymode(archive, scratch)
        scratch.replace(archive)


def check_room(folder: Path, needed: int) -> None:
    """Check the free space first: torch and the archiver report a full disk in many unclear ways.

    Raises:
        SetupError: fewer than `needed` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(f"The disk is full: {folder} has {free // 10**6} MB free and {needed // 10**6} are needed.")


def _fill(content: Path, recipe: Recipe) -> dict[str, Any]:
    """Put weights, labels and a user's own module into `content`; returns the model-config.yaml."""
    architecture = _own_module(content, recipe.architecture)
    labels = _labels(recipe)
    (content / "labels.txt").write_text("\n".join(labels.names) + "\n", encoding="utf-8")
    weights = _weights(recipe, architecture, len(labels), content)
    check_room(content, 3 * sum(tensor.nbytes for tensor in weights.values()))
    torch.save(dict(weights), content / "weights.pt")
    preprocessing = recipe.preprocessing or architectures.published_preprocessing(architecture)
    section = {
        "architecture": architecture,
        "preprocessing": preprocessing and preprocessing.model_dump(mode="json"),
        **({} if recipe.labels else {"class_groups": embedded.IMAGENET_GROUPS}),
        **recipe.settings,
    }
    return {**recipe.server, "camserve": section}


def _unpack(archive: Path, content: Path) -> tuple[str, str, dict[str, Any]]:
    """Name, version and model-config.yaml of an archive whose files are put into `content`."""
    if not archive.is_file():
        raise SetupError(f"There is no archive {str(archive)!r}: build it with `camserve archive`.")
    try:
        with zipfile.ZipFile(archive) as packed:
            check_room(content, sum(entry.file_size for entry in packed.infolist()))
            packed.extractall(content)
        model = orjson.loads((content / "MAR-INF" / "MANIFEST.json").read_bytes())["model"]
        config = yaml.safe_load((content / Path(model["configFile"]).name).read_text(encoding="utf-8"))
        return model["modelName"], str(model["modelVersion"]), dict(config)
    except (
        zipfile.BadZipFile,
        FileNotFoundError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
        yaml.YAMLError,
    ) as error:
        raise SetupError(
            f"{archive.name} is not an archive of camserve's: build it with `camserve archive`."
        ) from error


def _own_module(content: Path, architecture: str) -> str:
    """Copy a user's file beside the weights; its name inside the archive has no folder."""
    file, _, name = architecture.rpartition(":")
    if not file.endswith(".py"):
        return architecture
    path = Path(file)
    if not path.is_file():
        raise SetupError(f"There is no file {file!r}; expected PATH/FILE.py:CLASS.")
    if path.stem in sys.stdlib_module_names or path.stem == "camserve":
        raise SetupError(f"{path.name} would hide a module of that name in the worker; rename the file.")
    shutil.copy(path, content / path.name)
    return f"{path.name}:{name}"


def _labels(recipe: Recipe) -> Labels:
    return load_labels(recipe.labels) if recipe.labels else Labels(embedded.imagenet_labels())


def _weights(recipe: Recipe, architecture: str, classes: int, content: Path) -> Mapping[str, Tensor]:
    """The state dict to ship, checked against the architecture."""
    network = architectures.build(architecture, classes, content)
    if recipe.weights == "none":
        return network.state_dict()
    weights = _published(architecture) if recipe.weights == "DEFAULT" else state_dict(Path(recipe.weights))
    fill(network, weights, architecture)
    return network.state_dict()


def _published(architecture: str) -> Mapping[str, Tensor]:
    """Published weights: the embedded ones from their package, others from their library's hub."""
    if architecture == embedded.ARCHITECTURE:
        return embedded.weights()
    try:
        return architectures.published_weights(architecture)
    except (OSError, RuntimeError, ValueError) as error:
        raise SetupError(
            f"The published weights of {architecture} could not be downloaded ({type(error).__name__}). "
            "Fetch the state dict elsewhere and give it with --weights FILE."
        ) from error


def _pack(recipe: Recipe, content: Path, settings: Path, store: Path, scratch: Path) -> Path:
    """Run the archiver; it empties a folder named like the model in TMPDIR, so it gets one of its own."""
    temporary = scratch / "tmp"
    temporary.mkdir()
    check_room(store, (content / "weights.pt").stat().st_size)
    command = [
        str(Path(sys.executable).with_name("torch-model-archiver")),
        f"--model-name={recipe.name}",
        f"--version={recipe.version}",
        f"--handler={_ENTRY}",
        f"--extra-files={content}",
        f"--config-file={settings}",
        f"--export-path={store}",
        "--force",
    ]
    # The command is ours and runs without a shell.
    done = subprocess.run(  # noqa: S603
        command, env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SetupError(f"torch-model-archiver failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return store / f"{recipe.name}.mar"
