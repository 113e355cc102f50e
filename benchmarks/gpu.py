"""The GPU path: agreement with the CPU, what explanations cost there, and pictures a second from JPEG to JSON.

    python benchmarks/gpu.py [--rounds 20] [--batches 1 8 64 256]

ResNet-50 with seeded random weights, in float32 and in bfloat16. Times of the device are CUDA's own, taken in turn
with the plain forward, and given as ratios to it. Without a GPU nothing is measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import orjson
import torch
from tqdm import tqdm

import report
from camserve.archive import Recipe, opened
from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.model.fold import fold
from camserve.model.load import in_fast_order
from camserve.model.precision import to_bfloat16
from camserve.pipeline import Pipeline
from camserve.records import Row, Task
from engine import CLASSES, SIDE, Job, built, of_captum, of_grad_cam, ours, plain
from photographs import SMALL, photographs

ARCHITECTURE = "torchvision/resnet50"
STAGES = ("decode", "preprocess", "forward", "explain", "render", "encode")
AGREEMENT = {"float32": 1e-3, "bfloat16": 0.05}
"""How far logits and maps may lie from the CPU's float32, in units of the largest."""


def pictures(count: int) -> torch.Tensor:
    """Inputs in the order of memory that a worker uses."""
    noise = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return noise.contiguous(memory_format=torch.channels_last)


def engine_on(device: str, precision: str) -> Engine:
    """The network as a worker loads it."""
    network = built(ARCHITECTURE).requires_grad_(False).to(device)
    probe = pictures(8).to(device)
    hidden = fold(network, probe)
    in_fast_order(network)
    engine = prove(network, probe, CLASSES, None, None, hidden)
    if precision == "bfloat16":
        to_bfloat16(network, engine.layers[engine.default].module, probe)
        engine = prove(network, probe, CLASSES, engine.default, None, hidden)
    return engine


def disagreement(one: Engine, other: Engine) -> float:
    """The largest distance of logits and of maps of the same classes, in units of the largest value."""
    tasks = [Task("gradcam", one.default, (0, 1, 2), None, "positive")] * 8
    found = []
    for engine, device in ((one, "cpu"), (other, "cuda")):
        trace = engine.forward(pictures(8).to(device), tasks)
        maps = [entry.map for row in engine.maps(trace, tasks) for entry in row]
        found.append((trace.logits.float().cpu().numpy(), np.stack(maps)))
    return max(float(np.abs(mine - theirs).max() / np.abs(mine).max()) for mine, theirs in zip(*found, strict=True))


def device_ms(job: Job) -> float:
    """One run, in milliseconds between two events of the device."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    job()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def ratios(base: Job, jobs: Mapping[str, Job], rounds: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of `base`, and the other jobs' medians over its median, in turn."""
    times: dict[str, list[float]] = {name: [] for name in ("", *jobs)}
    for _ in range(rounds + 3):
        for name, job in (("", base), *jobs.items()):
            times[name].append(device_ms(job))
    found = {name: median(values[3:]) for name, values in times.items()}
    return found[""], {name: found[name] / found[""] for name in jobs}


def cost(engine: Engine, batch: int, rounds: int, peers: bool) -> list[str]:
    """One row of the table of costs."""
    inputs = pictures(batch).cuda()
    base, mine = ratios(
        plain(engine.network, inputs), {"1": ours(engine, inputs, 1), "5": ours(engine, inputs, 5)}, rounds
    )
    theirs = {"captum": "", "pytorch-grad-cam": ""}
    if peers:
        trained = built(ARCHITECTURE).cuda()
        jobs = {
            "captum": of_captum(trained, engine.default, inputs, 1),
            "pytorch-grad-cam": of_grad_cam(trained, engine.default, inputs, 1),
        }
        _, found = ratios(plain(trained, inputs), jobs, max(3, rounds // 4))
        theirs = {name: f"{value:.2f}" for name, value in found.items()}
    return [str(batch), f"{base:.2f} ms", f"{mine['1']:.3f}", f"{mine['5']:.3f}", *theirs.values()]


def flow(pipeline: Pipeline, images: Sequence[bytes], query: str, rounds: int) -> list[str]:
    """Pictures a second through the whole path, and milliseconds a picture in each stage."""
    rows = [Row(str(place), {"body": image}, {"x-camserve-query": query}) for place, image in enumerate(images)]
    spent, stages = [], []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        answers = pipeline.answer(rows)
        spent.append(time.perf_counter() - start)
        stages.append([orjson.loads(answer.body)["timing_ms"] for answer in answers])
    means = [f"{median(np.mean([one[stage] or 0 for one in batch]) for batch in stages[2:]):.2f}" for stage in STAGES]
    return ["explained" if query else "plain", f"{len(rows) / median(spent[2:]):.0f}", *means]


def main() -> None:
    """Measure and write the section, where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each measurement (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256], metavar="N")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU here (torch.cuda.is_available() is false): nothing measured.")
        return
    head = ["pictures", "plain forward", "1 class", "5 classes", "captum, 1 class", "pytorch-grad-cam, 1 class"]
    text = [f"`python benchmarks/gpu.py` on {torch.cuda.get_device_name()}: ResNet-50, 224x224, time of the device."]
    for precision in ("float32", "bfloat16"):
        engine = engine_on("cuda", precision)
        off = disagreement(engine_on("cpu", "float32"), engine)
        assert off <= AGREEMENT[precision], f"{precision}: CPU and GPU disagree by {off:.1e}"
        rows = [cost(engine, n, options.rounds, precision == "float32") for n in tqdm(options.batches, unit="batch")]
        text.append(f"{precision}, at most {off:.0e} of the largest value away from the CPU:")
        text.append(report.table(head, rows))
    text.append(whole_path(max(options.batches), options.rounds))
    print("\n\n".join(text))
    report.write("The engine on a GPU", "\n\n".join(text))


def whole_path(batch: int, rounds: int) -> str:
    """The table of pictures a second, for one process with all cores."""
    images = [image for _, image in zip(range(batch), photographs(SMALL) * batch, strict=False)]
    recipe = Recipe("gpu", ARCHITECTURE, weights="none", settings={"device": "cuda"})
    with opened(recipe) as pipeline:
        rows = [flow(pipeline, images, query, max(3, rounds // 4)) for query in ("", "explain=true")]
    note = (
        f"From JPEG bytes (500x375) to JSON, {batch} pictures at once; milliseconds a picture while it is in a stage:"
    )
    return f"{note}\n\n{report.table(['', 'pictures/s', *STAGES], rows)}"


if __name__ == "__main__":
    main()
