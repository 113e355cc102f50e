"""The GPU path: agreement with the CPU, what explanations cost there, and pictures a second from JPEG to JSON.

    python benchmarks/gpu.py [--rounds 20] [--batches 1 8 64 256]

ResNet-50 with random weights, in float32 and in bfloat16. Times of single steps are those between CUDA's own
events. Every round runs the plain forward before and after each contender and notes the contender's time over theirs;
the median of the rounds is reported. The whole path is one process with a thread a processor; plain and explained
batches take turns. Without a GPU nothing is measured.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import orjson
import torch
from tqdm import tqdm

import report
from camserve import machine
from camserve.archive import Recipe, opened
from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.model.fold import FoldedBatchNorm, fold
from camserve.model.load import in_fast_order
from camserve.model.precision import to_bfloat16
from camserve.model.transform import to_input
from camserve.pipeline import Pipeline
from camserve.records import Row, Task
from engine import BATCH, CLASSES, NETWORKS, SIDE, Job, built, of_captum, of_grad_cam, ours, plain, ratios, seconds
from meter import SHARED
from photographs import SMALL, photographs, told

ARCHITECTURE = NETWORKS["ResNet-50"]
PEERS = {"captum": of_captum, "pytorch-grad-cam": of_grad_cam}
COUNTS = (1, 5)
"""Classes explained for each picture."""

ASKED = {64: 1.05}
"""What the time over that of the plain forward should be at most, by pictures in the batch."""

AGREEMENT = {"float32": 1e-3, "bfloat16": 0.05}
"""How far logits and maps should lie from the CPU's float32 at most, in units of the largest."""

WARM = 3
"""Runs of everything that do not count."""

QUERIES = {"plain": "", "explained": "explain=true"}
STAGES = ("decode", "preprocess", "input", "forward", "explain", "render", "encode")
OWN = ("decode", "preprocess", "render", "encode")
"""Stages in which threads work on single pictures; `input` puts a batch together on the processor."""


class Turn(NamedTuple):
    """One batch through the whole path: seconds of the batch, and the mean milliseconds that its pictures told."""

    seconds: float
    timing: dict[str, float]


class Flow(NamedTuple):
    """Batches of one kind: pictures a second, that over the plain ones', and milliseconds a picture in each stage."""

    precision: str
    pictures: int
    kind: str
    rate: float
    ratio: float
    stages: dict[str, float]


def pictures(count: int) -> torch.Tensor:
    """Inputs in the order of memory that a worker uses."""
    noise = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return noise.contiguous(memory_format=torch.channels_last)


def engine_on(device: str, precision: str) -> Engine:
    """The network as a worker loads it."""
    network = built(ARCHITECTURE).requires_grad_(False).to(device)
    probe = pictures(8).to(device)
    hidden = fold(network, probe)
    assert hidden, f"{device}: no batch norm was folded"
    in_fast_order(network)
    engine = prove(network, probe, CLASSES, None, None, hidden)
    if precision == "bfloat16":
        to_bfloat16(network, engine.layers[engine.default].module, probe)
        engine = prove(network, probe, CLASSES, engine.default, None, hidden)
    return engine


def results(engine: Engine, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of eight pictures and their maps of three classes."""
    tasks = [Task("gradcam", engine.default, (0, 1, 2), None, "positive")] * 8
    trace = engine.forward(pictures(8).to(device), tasks)
    maps = [entry.map for row in engine.maps(trace, tasks) for entry in row]
    return trace.logits.float().cpu().numpy(), np.stack(maps)


def disagreement(reference: Engine, engine: Engine, device: str) -> float:
    """The largest distance of logits and of maps from those on the CPU, in units of the largest value."""
    pairs = zip(results(reference, "cpu"), results(engine, device), strict=True)
    return max(float(np.abs(one - other).max() / np.abs(one).max()) for one, other in pairs)


def timer(device: str) -> Callable[[Job], float]:
    """What gives the milliseconds of one run there."""
    return between_events if device == "cuda" else lambda job: 1e3 * seconds(job)


def between_events(job: Job) -> float:
    """One run, in milliseconds between two events of the GPU, which has nothing else to do."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    job()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def cost(engine: Engine, device: str, batch: int, rounds: int) -> list[str]:
    """Our part of a row: milliseconds of the plain forward, what is asked, and the ratios to the plain forward."""
    inputs = pictures(batch).to(device)
    jobs = {str(count): ours(engine, inputs, count) for count in COUNTS}
    base, found = ratios(plain(engine.network, inputs), jobs, rounds, timer(device), WARM)
    asked = f"at most {ASKED[batch]:.2f}" if batch in ASKED else ""
    return [str(batch), f"{base:.2f} ms", asked, *(f"{value:.3f}" for value in found.values())]


def cost_of_peers(layer: str, device: str, batch: int, rounds: int) -> list[str]:
    """The peers' part: their ratios for each number of classes."""
    inputs = pictures(batch).to(device)
    trained = built(ARCHITECTURE).to(device)  # they need parameters with gradients
    jobs = {f"{name} {count}": peer(trained, layer, inputs, count) for name, peer in PEERS.items() for count in COUNTS}
    try:
        _, found = ratios(plain(trained, inputs), jobs, rounds, timer(device), WARM)
    except torch.OutOfMemoryError:
        return ["no room"] * len(PEERS)
    return [" / ".join(f"{found[f'{name} {count}']:.2f}" for count in COUNTS) for name in PEERS]


def costs(precision: str, reference: Engine, device: str, batches: Sequence[int], rounds: int) -> str:
    """The table of one precision; the peers compute in float32 only."""
    engine = engine_on(device, precision)
    off = disagreement(reference, engine, device)
    head = ["pictures", "plain forward", "asked", "1 class", "5 classes"]
    rows = []
    for batch in tqdm(batches, desc=precision, unit="batch"):
        row = cost(engine, device, batch, rounds)
        if precision == "float32":
            row += cost_of_peers(engine.default, device, batch, max(3, rounds // 4))
        rows.append(row)
    if precision == "float32":
        head += [f"{name}, 1 / 5" for name in PEERS]
    asked = f"asked: at most {AGREEMENT[precision]:g}"
    return f"{precision}, {off:.0e} of the largest value away from the CPU ({asked}):\n\n{report.table(head, rows)}"


def turn(pipeline: Pipeline, rows: Sequence[Row]) -> Turn:
    """One batch, all of it answered well."""
    start = time.perf_counter()
    answers = pipeline.answer(rows)
    spent = time.perf_counter() - start
    assert all(answer.status == 200 and b'"status":"failed"' not in answer.body for answer in answers)
    timings = [orjson.loads(answer.body)["timing_ms"] for answer in answers]
    return Turn(spent, {stage: mean(timing[stage] for timing in timings) for stage in (*OWN, *SHARED[:2])})


def joining_ms(pipeline: Pipeline, count: int, rounds: int) -> float:
    """Milliseconds in which a batch's views become its input; pictures tell them as part of their preprocessing."""
    side = pipeline.preprocessing.crop
    views = [np.ones((side, side, 3), np.uint8) for _ in range(count)]
    spent = []
    for _ in range(rounds + WARM):
        spent.append(1e3 * seconds(lambda: to_input(views, pipeline.preprocessing, pipeline.device)))
        if pipeline.device.type == "cuda":
            torch.cuda.synchronize()
    return median(spent[WARM:])


def shares(turns: Sequence[Turn], batch: int, joining: float) -> dict[str, float]:
    """Milliseconds a picture by stage: its own, and its part of what the batch took."""
    whole = {stage: median(one.timing[stage] for one in turns) for stage in turns[0].timing}
    whole |= {"input": joining, "preprocess": max(0.0, whole["preprocess"] - joining)}
    return {stage: whole[stage] / (1 if stage in OWN else batch) for stage in STAGES}


def flows(pipeline: Pipeline, batch: int, rounds: int) -> list[Flow]:
    """Plain and explained batches in turn."""
    images = list(islice(cycle(photographs(SMALL)), batch))
    rows = {
        kind: [Row(str(place), {"body": image}, {"x-camserve-query": query}) for place, image in enumerate(images)]
        for kind, query in QUERIES.items()
    }
    turns: dict[str, list[Turn]] = {kind: [] for kind in QUERIES}
    for _ in range(rounds + WARM):
        for kind in QUERIES:
            turns[kind].append(turn(pipeline, rows[kind]))
    joining = joining_ms(pipeline, batch, rounds)
    found = []
    for kind, every in turns.items():
        counted = every[WARM:]
        rate = batch / median(one.seconds for one in counted)
        pairs = zip(turns["plain"][WARM:], counted, strict=True)
        ratio = median(base.seconds / one.seconds for base, one in pairs)
        precision = pipeline.settings.precision
        found.append(Flow(precision, batch, kind, rate, ratio, shares(counted, batch, joining)))
    return found


def parts(flow: Flow, threads: int) -> tuple[float, float]:
    """Milliseconds a picture of the processor, whose threads share the pictures, and of the GPU."""
    own = sum(flow.stages[stage] for stage in OWN) / min(threads, flow.pictures)
    return own + flow.stages["input"], flow.stages["forward"] + flow.stages["explain"]


def bound(flow: Flow, threads: int) -> str:
    """Where the bound lies, in a sentence."""
    processor, gpu = parts(flow, threads)
    larger = "the processor's work" if processor > gpu else "the GPU's work"
    return (
        f"{flow.pictures} {flow.kind} pictures at once in {flow.precision} are bound by {larger}: the processor takes "
        f"{processor:.2f} ms a picture with {min(threads, flow.pictures)} threads, forward and explanation on the GPU "
        f"{gpu:.2f} ms."
    )


def whole_path(device: str, batches: Sequence[int], rounds: int) -> str:
    """The table of pictures a second for one process, and where the bound lies."""
    threads = len(os.sched_getaffinity(0))
    found: list[Flow] = []
    for precision in AGREEMENT:
        settings = {"device": device, "precision": precision, "threads": threads}
        with opened(Recipe("gpu", ARCHITECTURE, weights="none", settings=settings)) as pipeline:
            folded = any(isinstance(module, FoldedBatchNorm) for module in pipeline.engine.network.modules())
            assert folded, f"{precision}: the pipeline's network is not folded"
            found += [flow for batch in batches for flow in flows(pipeline, batch, rounds)]
    rows = [
        [
            *(flow.precision, str(flow.pictures), flow.kind, f"{flow.rate:.0f}", f"{flow.ratio:.2f}"),
            *(f"{flow.stages[stage]:.2f}" for stage in STAGES),
            *(f"{part:.2f}" for part in parts(flow, threads)),
        ]
        for flow in found
    ]
    head = ["precision", "pictures", "kind", "pictures/s", "of plain", *STAGES, "processor", "GPU"]
    note = (
        f"From JPEG bytes ({told(SMALL)}) to JSON, one batch at a time in one process with {threads} threads; "
        "`of plain` is the median of the rounds' ratios. Stages are in milliseconds a picture: input, forward and "
        "explain are the times of whole batches divided by their pictures, the others a picture's own, of which "
        "several are in work at a time. `processor` is these over the threads, and input; `GPU` is forward and explain."
    )
    sentences = " ".join(bound(flow, threads) for flow in found if flow.kind == "explained")
    return f"{note}\n\n{report.table(head, rows)}\n\n{sentences}"


def main() -> None:
    """Measure and write the section, where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="of each measurement (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256], metavar="N")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU here (torch.cuda.is_available() is false): nothing measured.")
        return
    machine.prepare(machine.cores())  # on a GPU above all: float32 is float32
    warnings.filterwarnings("ignore", category=UserWarning)  # the peers', about their own hooks
    reference = engine_on("cpu", "float32")
    text = [
        "`python benchmarks/gpu.py`: ResNet-50, 224x224, times of the GPU over those of the plain forward just before "
        f"and after, medians of {options.rounds} rounds; peers in fewer.",
        *(costs(precision, reference, "cuda", options.batches, options.rounds) for precision in AGREEMENT),
        whole_path("cuda", sorted({BATCH, max(options.batches)}), max(3, options.rounds // 4)),
    ]
    print("\n\n".join(text))
    report.write("The engine on a GPU", "\n\n".join(text))


if __name__ == "__main__":
    main()
