"""What an explanation costs beyond a prediction: times of one batch, as ratios to the plain forward.

    python benchmarks/engine.py [--rounds 15] [--peers 3] [--networks resnet50 ...]

Every round runs the plain forward and each contender once, in turn, and notes the contender's time over that of
the plain forward of the same round; the median of the rounds is reported. Weights are seeded random numbers: they do
not change the time. The peers do the same job: Grad-CAM of one or five classes for each of eight pictures.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Mapping
from statistics import median

import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchcam.methods import GradCAM as TorchcamGradCAM
from tqdm import tqdm

import report
from camserve import machine
from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.model import architectures
from camserve.model.fold import fold
from camserve.model.fuse import fuse
from camserve.model.load import in_fast_order
from camserve.model.pack import pack
from camserve.records import Task

BATCH, SIDE, CLASSES = 8, 224, 1000
NETWORKS = {
    "ResNet-50": "torchvision/resnet50",
    "DenseNet-201": "torchvision/densenet201",
    "EfficientNet-Lite0": "timm/tf_efficientnet_lite0",
    "VGG-19": "torchvision/vgg19",
    "MobileNetV3-Large": "torchvision/mobilenet_v3_large",
    "ConvNeXt-Tiny": "torchvision/convnext_tiny",
}
Job = Callable[[], object]


def built(architecture: str) -> nn.Module:
    """A network in eval mode with seeded random weights."""
    torch.manual_seed(0)
    return architectures.build(architecture, CLASSES, None).eval()


def served(engine: Engine, inputs: Tensor) -> Job:
    """Our forward alone, as a worker does it."""
    return lambda: engine.forward(inputs, [None] * len(inputs))


def plain(network: nn.Module, inputs: Tensor) -> Job:
    """The forward alone."""

    def job() -> Tensor:
        with torch.inference_mode():
            return network(inputs)

    return job


def ours(engine: Engine, inputs: Tensor, classes: int) -> Job:
    """Logits, and maps of the likeliest classes of every row."""
    tasks = [Task("gradcam", engine.default, classes, None, "positive")] * len(inputs)
    return lambda: engine.maps(engine.forward(inputs, tasks), tasks)


def of_captum(network: nn.Module, layer: str, inputs: Tensor, classes: int) -> Job:
    """A forward for the logits, then a forward and a backward a class."""
    cam = LayerGradCam(network, network.get_submodule(layer))

    def job() -> list[Tensor]:
        with torch.inference_mode():
            chosen = network(inputs).topk(classes).indices
        # Detached, for a result holds the graph of its whole forward.
        return [cam.attribute(inputs, chosen[:, j].clone()).detach() for j in range(classes)]

    return job


def of_torchcam(network: nn.Module, layer: str, inputs: Tensor, classes: int) -> Job:
    """One forward, and a backward of the whole network a class."""

    def job() -> list[Tensor]:
        with TorchcamGradCAM(network, target_layer=layer) as cam:
            logits = network(inputs.clone().requires_grad_(True))
            chosen = logits.topk(classes).indices
            return [cam(chosen[:, j].tolist(), logits, retain_graph=True)[0] for j in range(classes)]

    return job


def of_grad_cam(network: nn.Module, layer: str, inputs: Tensor, classes: int) -> Job:
    """A forward for the logits, then a forward and a backward a class."""

    def job() -> list[object]:
        with torch.inference_mode():
            chosen = network(inputs).topk(classes).indices.tolist()
        with GradCAM(model=network, target_layers=[network.get_submodule(layer)]) as cam:
            targets = [[ClassifierOutputTarget(row[j]) for row in chosen] for j in range(classes)]
            return [cam(input_tensor=inputs, targets=row) for row in targets]

    return job


PEERS = {"captum": of_captum, "torchcam": of_torchcam, "pytorch-grad-cam": of_grad_cam}


def seconds(job: Job) -> float:
    """One run."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def ratios(
    base: Job, jobs: Mapping[str, Job], rounds: int, timed: Callable[[Job], float] = seconds, warm: int = 1
) -> tuple[float, dict[str, float]]:
    """The median time of `base`, and of each job's times over that of `base` just before and just after it.

    `timed` gives the time of one run, in the unit of the result. The first `warm` runs of everything do not count.
    """
    for job in (base, *jobs.values()):
        for _ in range(warm):
            timed(job)
    times: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        before = timed(base)
        for name, job in jobs.items():
            spent, after = timed(job), timed(base)
            found[name].append(2 * spent / (before + after))
            times.append(after)
            before = after
    return median(times), {name: median(values) for name, values in found.items()}


def measured(architecture: str, rounds: int, peer_rounds: int) -> list[str]:
    """One line of the table: milliseconds of the plain forward, then ratios."""
    inputs = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    network = built(architecture).requires_grad_(False)
    folded = fold(network, inputs)
    in_fast_order(network)
    pack(network, inputs)
    fuse(network, inputs)
    engine = prove(network, inputs, CLASSES, None, None, folded)
    engine.record(inputs)
    base, mine = ratios(served(engine, inputs), {"1": ours(engine, inputs, 1), "5": ours(engine, inputs, 5)}, rounds)
    trained = built(architecture)  # the peers need parameters with gradients
    jobs = {f"{name} {k}": peer(trained, engine.default, inputs, k) for name, peer in PEERS.items() for k in (1, 5)}
    _, theirs = ratios(plain(trained, inputs), jobs, peer_rounds) if peer_rounds else (0, dict.fromkeys(jobs, 0.0))
    how = "closed form" if engine.is_exact("gradcam", engine.default) else "backward of the tail"
    pairs = [f"{theirs[f'{name} 1']:.1f} / {theirs[f'{name} 5']:.1f}" for name in PEERS]
    return [how, f"{base * 1e3:.0f} ms", f"{mine['1']:.3f}", f"{mine['5']:.3f}", *pairs]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of ours (default: %(default)s)")
    parser.add_argument("--peers", type=int, default=3, help="of the peers; 0 leaves them out (default: %(default)s)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    options = parser.parse_args()
    machine.prepare(os.cpu_count() or 1)
    warnings.filterwarnings("ignore", category=UserWarning)  # theirs, about their own hooks
    rows = [
        [name, *measured(NETWORKS[name], options.rounds, options.peers)] for name in tqdm(options.networks, unit="net")
    ]
    head = ["network", "maps by", "plain forward", "1 class", "5 classes", *(f"{name}, 1 / 5" for name in PEERS)]
    print(report.table(head, rows))
    report.write(
        "The engine on a CPU",
        f"`python benchmarks/engine.py`: Grad-CAM for each of {BATCH} pictures of {SIDE}x{SIDE}, at each network's "
        "default layer, networks and memory as in a worker (batch norms folded, channels last, packed, fused, on a "
        "tape); the time over that of the plain forward of the same network, medians of alternating runs "
        f"({options.rounds} of ours, {options.peers} of the peers). pytorch-grad-cam enlarges its maps to the picture, "
        f"the others do not.\n\n{report.table(head, rows)}",
    )


if __name__ == "__main__":
    main()
