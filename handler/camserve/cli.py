"""The command line: `camserve explain`, `layers`, `evaluate`, `reference`, `archive`, `serve`, `start`, `stop`.

Each command imports what it needs when it is called: help and mistakes are answered at once, and a module that is
missing is told in a sentence.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from camserve.errors import CamserveError, SetupError

if TYPE_CHECKING:
    from camserve.archive import Recipe

SAMPLE = Path(__file__).resolve().parent / "page" / "samples" / "cat.jpg"


class Command(NamedTuple):
    """One line of help, how its flags are added, and what it does."""

    help: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. What goes wrong is told in one sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what is no text, as in names of files
    try:
        options = _parser(sys.argv[1:] if arguments is None else arguments).parse_args(arguments)
        return options.run(options) or 0
    except CamserveError as error:
        return _failed(str(error))
    except ModuleNotFoundError as error:
        return _failed(f"The Python module {error.name!r} is missing: run 'make install'.")
    except OSError as error:
        full = "The disk is full: " if error.errno == errno.ENOSPC else ""
        return _failed(f"{full}{error.strerror or error} ({error.filename or 'no file named'}).")


def _near(path: Path) -> Path:
    """The path as one would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _failed(sentence: str) -> int:
    print(f"camserve: {sentence}", file=sys.stderr)
    return 1


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """All commands, and the flags of the one that is called: those of `explain` are the service's options."""
    parser = argparse.ArgumentParser(
        prog="camserve", description="Image classification with its explanation in the same response."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.help, formatter_class=argparse.RawDescriptionHelpFormatter)
        own.set_defaults(run=command.run)
        if name in arguments[:1]:
            command.add(own)
    return parser


def _add_model(parser: argparse._ActionsContainer, weights: str = "DEFAULT") -> None:
    parser.add_argument(
        "--model",
        default="timm/tf_efficientnet_lite0",
        help="timm/NAME, torchvision/NAME or PATH/FILE.py:CLASS (default: the embedded %(default)s)",
    )
    _add_parts(parser, weights)


def _add_parts(parser: argparse._ActionsContainer, weights: str) -> None:
    parser.add_argument(
        "--weights",
        default=weights,
        help="a state dict's file, DEFAULT for published weights, none for random ones (default: %(default)s)",
    )
    parser.add_argument("--labels", type=Path, help="class names, one a line (default: ImageNet's 1,000)")
    parser.add_argument(
        "--preprocessing",
        metavar="JSON",
        help='for a network of your own: {"resize": 256, "crop": 224, "interpolation": "bilinear", '
        '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}',
    )


def _add_archive(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Build NAME.mar from a network, its weights and its labels. The model is loaded and proven\n"
        "fit to be explained before anything is written."
    )
    _add_model(parser)
    parser.add_argument("--name", default="classifier", help="the name it is served under (default: %(default)s)")
    parser.add_argument("--version", default="1.0", help="the model's version (default: %(default)s)")
    parser.add_argument("--layer", help="the layer explained by default (default: found and proven)")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/model-config.yaml"),
        help="workers, batch size and further settings (default: %(default)s)",
    )
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="where to (default: %(default)s)")


def _add_explain(parser: argparse.ArgumentParser) -> None:
    from camserve.options import Options

    parser.description = (
        "Explain pictures as the service would, without a server. For each picture NAME this writes\n"
        "NAME.json, the service's answer; NAME-CLASS-overlay.jpg; and, where several classes are\n"
        "explained, NAME-sheet.jpg, which shows them side by side."
    )
    parser.epilog = (
        "examples:\n"
        "  camserve explain cat.jpg\n"
        "  camserve explain holiday/ --grid 8\n"
        "  camserve explain cat.jpg --classes 'Egyptian cat,tiger cat' --method layercam\n"
        "  camserve explain cat.jpg --classes 285 --contrast 282 --polarity both\n"
        "  CAMSERVE_MAX_FORWARDS=2000 camserve explain cat.jpg --method scorecam"
    )
    parser.add_argument("picture", type=Path, nargs="+", metavar="IMAGE", help="a picture, or a folder of them")
    parser.add_argument("--output", type=Path, default=Path("explained"), help="folder (default: %(default)s)")
    parser.add_argument("--grid", type=int, metavar="N", help="a sheet of the N likeliest classes (--classes top:N)")
    model = parser.add_argument_group("the model; --model may also be an archive, FILE.mar")
    _add_model(model)
    group = parser.add_argument_group("the service's options, as in a request")
    for name, field in Options.model_fields.items():
        if name != "explain":
            group.add_argument(
                f"--{name.replace('_', '-')}",
                dest=f"option_{name}",
                metavar="VALUE",
                help=f"{field.description} (default: {_told(name, field.default)})",
            )


def _told(name: str, default: object) -> str:
    """A default as one would write it."""
    if name == "classes":
        return f"top:{default}"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "none" if default is None else str(default).lower()


def _add_layers(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the layers of a network that can be explained, in the order of the forward pass."
    parser.add_argument(
        "model", metavar="MODEL", help="timm/NAME, torchvision/NAME, PATH/FILE.py:CLASS or an archive, FILE.mar"
    )
    _add_parts(parser, "none")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare methods and layers on a folder of pictures, and recommend one for this model. Writes\n"
        "report.md with tables, plots and a sheet of examples. A file labels.csv in the folder (columns\n"
        "file,class_id) names the true classes; without it the model's own answers count."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="at least 10 pictures the model is sure of")
    parser.add_argument("--output", type=Path, default=Path("evaluation"), help="folder (default: %(default)s)")
    parser.add_argument("--methods", default="", metavar="A,B", help="default: all that the model's settings allow")
    parser.add_argument("--layers", default="", metavar="A,B", help="default: the model's default layer")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    _add_model(parser)


def _add_reference(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure where a model looks, group by group, on pictures that are as they should be, and keep it in the\n"
        "archive. The service compares itself with it: the metric camserve_evidence_similarity_ratio. Without it\n"
        "the first maps served are taken."
    )
    parser.add_argument("picture", type=Path, nargs="+", metavar="FOLDER", help="pictures, or folders of them")
    parser.add_argument(
        "--archive",
        type=Path,
        default=Path("model_store/classifier.mar"),
        metavar="FILE.mar",
        help="the archive (default: %(default)s)",
    )


def _add_serving(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start TorchServe and the gateway, wait until a worker answers, explain one picture. Ports are set\n"
        "with CAMSERVE_GATEWAY_PORT, CAMSERVE_INFERENCE_PORT, CAMSERVE_MANAGEMENT_PORT,\n"
        "CAMSERVE_METRICS_PORT, CAMSERVE_SCRAPE_PORT, CAMSERVE_GRPC_PORT and CAMSERVE_GRPC_MANAGEMENT_PORT.\n"
        "CAMSERVE_HOST, CAMSERVE_TLS_CERTIFICATE and CAMSERVE_TLS_KEY together turn TLS on,\n"
        "CAMSERVE_TOKENS=true tokens."
    )
    parser.add_argument("--name", default="classifier", help="serves STORE/NAME.mar (default: %(default)s)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="default: %(default)s")
    parser.add_argument("--config", type=Path, default=Path("config"), help="default: %(default)s")
    parser.add_argument("--state", type=Path, default=Path(".camserve"), help="logs and the list of processes")
    parser.add_argument("--picture", type=Path, default=_near(SAMPLE), help="explained once ready (default: a cat)")
    parser.add_argument("--overlay", type=Path, default=Path("overlay.jpg"), help="where its overlay is written")


def _add_stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, default=Path(".camserve"), help="the folder it was started with")


def _recipe(options: argparse.Namespace, settings: Mapping[str, object], server: Mapping[str, object]) -> Recipe:
    """What the flags say about a model."""
    from camserve.archive import Recipe
    from camserve.settings import Preprocessing

    return Recipe(
        getattr(options, "name", "classifier"),
        options.model,
        options.weights,
        options.labels,
        Preprocessing.from_json(options.preprocessing) if options.preprocessing else None,
        getattr(options, "version", "1.0"),
        server,
        settings,
    )


def _archive(options: argparse.Namespace) -> None:
    print(f"Loading {options.model} and proving that it can be explained ...", flush=True)
    import yaml

    from camserve.archive import build, holds
    from camserve.monitor import REFERENCE

    try:
        config = dict(yaml.safe_load(options.config.read_text(encoding="utf-8")))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise SetupError(f"{options.config} is no YAML file of settings.") from error
    settings = config.pop("camserve", None) or {}
    if options.layer:
        settings["layer"] = options.layer
    referred = holds(options.store / f"{options.name}.mar", REFERENCE)
    archive = build(_recipe(options, settings, config), options.store)
    print(f"Wrote {archive} ({archive.stat().st_size / 1e6:.0f} MB).")
    if referred:
        print("The one before had a reference of its evidence: measure this one's with `camserve reference`.")


def _explain(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from camserve.archive import opened
    from camserve.offline import explain, find_pictures

    asked = _asked(options)
    files = find_pictures(options.picture)
    failed = 0
    with opened(_recipe(options, {}, {})) as pipeline:
        progress = tqdm(explain(pipeline, files, asked, options.output), total=len(files), unit="picture", disable=None)
        for one in progress:
            progress.write(f"{one.file}: {one.line}", sys.stdout if one.good else sys.stderr)
            failed += not one.good
    print(f"Explained {len(files) - failed} of {len(files)} pictures into {options.output}.")
    return 1 if failed else 0


def _asked(options: argparse.Namespace) -> dict[str, str]:
    """The service's options as they would stand in a request; wrong ones are refused before the model loads.

    Raises:
        InvalidOption: names the option.
    """
    from camserve.options import parse

    given = {name.removeprefix("option_"): text for name, text in vars(options).items() if name.startswith("option_")}
    asked = {name: text for name, text in given.items() if text is not None}
    if options.grid is not None:
        if "classes" in asked:
            raise SetupError("Give --grid N for the N likeliest classes, or --classes, not both.")
        asked["classes"] = f"top:{options.grid}"
        asked.setdefault("topk", str(min(20, max(5, options.grid))))
    parse(asked)
    return asked


def _layers(options: argparse.Namespace) -> None:
    from camserve.archive import opened

    with opened(_recipe(options, {}, {})) as pipeline:
        engine = pipeline.engine
        width = max(map(len, engine.layers))
        print(f"{'layer':<{width}}  {'grid':>9}  {'channels':>8}  {'module'}")
        for name, layer in engine.layers.items():
            exact = ", exact" if engine.is_exact("gradcam", name) else ""
            mark = f"  <- default{exact}" if name == engine.default else ""
            grid = "x".join(map(str, layer.grid))
            print(f"{name:<{width}}  {grid:>9}  {layer.channels:>8}  {_kind(layer.module)}{mark}")


def _kind(module: object) -> str:
    """The class as its library calls it, where one of ours has taken its place."""
    theirs = next(kind for kind in type(module).__mro__ if not kind.__module__.startswith("camserve."))
    return (type(module) if theirs.__name__ == "Module" else theirs).__name__


def _evaluate(options: argparse.Namespace) -> None:
    from camserve.archive import opened
    from camserve.evaluate import evaluate

    methods, layers = (tuple(filter(None, given.split(","))) for given in (options.methods, options.layers))
    with opened(_recipe(options, {}, {})) as pipeline:
        print(f"Wrote {evaluate(pipeline, options.folder, options.output, methods, layers, options.seed)}.")


def _reference(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from camserve.archive import Recipe, opened, put
    from camserve.exporter import dump
    from camserve.groups import Groups
    from camserve.monitor import REFERENCE
    from camserve.offline import find_pictures, references

    files = find_pictures(options.picture)
    with (
        opened(Recipe("reference", str(options.archive))) as pipeline,
        tqdm(total=len(files), unit="picture", disable=None) as progress,
    ):
        groups = Groups(pipeline.settings.class_groups, pipeline.card.labels)
        found = references(pipeline, files, groups, progress.update)
    if not found:
        raise SetupError("No picture gave a map with evidence: there is nothing to keep.")
    put(options.archive, REFERENCE, dump({group: shares for group, (shares, _) in found.items()}))
    for group, (_, maps) in sorted(found.items()):
        print(f"{maps:6}  {group}")
    print(f"Kept in {options.archive}; it counts when the model is loaded again.")


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


COMMANDS: Mapping[str, Command] = {
    "explain": Command("explain pictures without a server", _add_explain, _explain),
    "layers": Command("list what can be explained in a network", _add_layers, _layers),
    "evaluate": Command("find the method and layer to trust for a model", _add_evaluate, _evaluate),
    "reference": Command(
        "keep where a model looks, for the service to compare itself with", _add_reference, _reference
    ),
    "archive": Command("pack a model into a .mar that TorchServe can serve", _add_archive, _archive),
    "serve": Command("run TorchServe and the gateway until Ctrl-C", _add_serving, _serve),
    "start": Command("the same in the background", _add_serving, _start),
    "stop": Command("stop what start or serve began", _add_stop, _stop),
}


if __name__ == "__main__":
    sys.exit(main())
