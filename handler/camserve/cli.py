"""The command line: `camserve archive`, `serve`, `start`, `stop`. `camserve COMMAND --help` explains each.

Each command imports what it needs when it runs: help and mistakes are answered at once, and a module that is
missing is told in a sentence.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from camserve.errors import CamserveError

SAMPLE = Path(__file__).resolve().parent / "page" / "samples" / "cat.jpg"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. What goes wrong is told in one sentence."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except CamserveError as error:
        return _failed(str(error))
    except ModuleNotFoundError as error:
        return _failed(f"The Python module {error.name!r} is missing: run 'make install'.")
    except OSError as error:
        full = "The disk is full: " if error.errno == errno.ENOSPC else ""
        return _failed(f"{full}{error.strerror or error} ({error.filename or 'no file named'}).")
    return 0


def _near(path: Path) -> Path:
    """The path as one would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _failed(sentence: str) -> int:
    print(f"camserve: {sentence}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camserve", description="Image classification with its explanation in the same response."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_archive(commands.add_parser("archive", help="pack a model into a .mar that TorchServe can serve"))
    _add_serving(commands.add_parser("serve", help="run TorchServe and the gateway until Ctrl-C"), _serve)
    _add_serving(commands.add_parser("start", help="the same in the background"), _start)
    stopping = commands.add_parser("stop", help="stop what start or serve began")
    stopping.add_argument("--state", type=Path, default=Path(".camserve"), help="the folder it was started with")
    stopping.set_defaults(run=_stop)
    return parser


def _add_archive(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Build NAME.mar from a network, its weights and its labels. The model is loaded and proven fit to be "
        "explained before anything is written."
    )
    parser.add_argument(
        "--model",
        default="timm/tf_efficientnet_lite0",
        help="timm/NAME, torchvision/NAME or PATH/FILE.py:CLASS (default: the embedded %(default)s)",
    )
    parser.add_argument(
        "--weights", default="DEFAULT", help="a state dict's file, DEFAULT for published weights, none for random ones"
    )
    parser.add_argument("--labels", type=Path, help="class names, one a line (default: ImageNet's 1,000)")
    parser.add_argument("--name", default="classifier", help="the name it is served under (default: %(default)s)")
    parser.add_argument("--version", default="1.0", help="the model's version (default: %(default)s)")
    parser.add_argument("--layer", help="the layer explained by default (default: found and proven)")
    parser.add_argument(
        "--preprocessing",
        metavar="JSON",
        help='for a network of your own: {"resize": 256, "crop": 224, "interpolation": "bilinear", '
        '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}',
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/model-config.yaml"),
        help="workers, batch size and further settings (default: %(default)s)",
    )
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="where to (default: %(default)s)")
    parser.set_defaults(run=_archive)


def _add_serving(parser: argparse.ArgumentParser, run: object) -> None:
    parser.description = (
        "Start TorchServe and the gateway, wait until a worker answers, explain one picture. Ports are set with "
        "CAMSERVE_GATEWAY_PORT, CAMSERVE_INFERENCE_PORT, CAMSERVE_MANAGEMENT_PORT, CAMSERVE_METRICS_PORT, "
        "CAMSERVE_GRPC_PORT and CAMSERVE_GRPC_MANAGEMENT_PORT."
    )
    parser.add_argument("--name", default="classifier", help="serves STORE/NAME.mar (default: %(default)s)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="default: %(default)s")
    parser.add_argument("--config", type=Path, default=Path("config"), help="default: %(default)s")
    parser.add_argument("--state", type=Path, default=Path(".camserve"), help="logs and the list of processes")
    parser.add_argument("--picture", type=Path, default=_near(SAMPLE), help="explained once ready (default: a cat)")
    parser.add_argument("--overlay", type=Path, default=Path("overlay.jpg"), help="where its overlay is written")
    parser.set_defaults(run=run)


def _archive(options: argparse.Namespace) -> None:
    print(f"Loading {options.model} and proving that it can be explained ...", flush=True)
    import yaml

    from camserve.archive import Recipe, build
    from camserve.settings import Preprocessing

    config = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    settings = config.pop("camserve", None) or {}
    if options.layer:
        settings["layer"] = options.layer
    recipe = Recipe(
        options.name,
        options.model,
        options.weights,
        options.labels,
        Preprocessing.from_json(options.preprocessing) if options.preprocessing else None,
        options.version,
        config,
        settings,
    )
    archive = build(recipe, options.store)
    print(f"Wrote {archive} ({archive.stat().st_size / 1e6:.0f} MB).")


def _serve(options: argparse.Namespace) -> None:
    from camserve.stack import Ports, Stack, serve

    stack = Stack(
        options.store,
        options.name,
        f"{options.name}.mar",
        Ports.from_environment(os.environ),
        options.config,
        options.state,
    )
    serve(stack, options.picture, options.overlay)


def _start(options: argparse.Namespace) -> None:
    from camserve.stack import start

    places = ("name", "store", "config", "state", "picture", "overlay")
    flags = [f"--{place}={getattr(options, place)}" for place in places]
    start([sys.executable, "-m", "camserve.cli", "serve", *flags], options.state)
    print("Running in the background; 'make stop' (or 'camserve stop') ends it.")


def _stop(options: argparse.Namespace) -> None:
    from camserve.stack import stop

    print("Stopped." if stop(options.state) else "Nothing is running.")


if __name__ == "__main__":
    sys.exit(main())
