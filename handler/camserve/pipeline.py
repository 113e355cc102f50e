"""The whole path in one place: `Pipeline.answer` reads top to bottom in the order of the data."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch

from camserve import response
from camserve.cam.engine import FAILED, LATE, Engine
from camserve.cam.gates import BATCHES, prove
from camserve.cam.methods import METHODS
from camserve.cam.quality import assess
from camserve.clock import Clock, Deadline
from camserve.describe import describe
from camserve.errors import InternalError, InvalidOption, NetworkLost, RequestError, SetupError
from camserve.imaging.budget import Allowance, Budget
from camserve.imaging.decode import SizeLimits, decode, inspect
from camserve.imaging.picture import Picture
from camserve.imaging.resize import canvas
from camserve.inspector import inspector
from camserve.model.architectures import tokens
from camserve.model.fold import fold
from camserve.model.fuse import fuse
from camserve.model.labels import Labels
from camserve.model.load import choose_device, in_fast_order, load_labels, load_network
from camserve.model.pack import pack
from camserve.model.precision import to_bfloat16
from camserve.model.transform import to_input, view
from camserve.options import Options
from camserve.plan import plan
from camserve.records import Answer, ClassMap, Drawing, Floats, Prepared, Quality, Row, Task, Verdict, shown
from camserve.render.draw import draw
from camserve.request import Ask, Call, is_native, read
from camserve.response import Card, Outcome, Served
from camserve.settings import Preprocessing, Settings
from camserve.shedding import Shedding
from camserve.trigger import trigger

_log = logging.getLogger(__name__)
_In = TypeVar("_In")
_Out = TypeVar("_Out")
_LONGEST_QUEUE_MS = 3_600_000
_SHORTAGES = "out of memory", "ALLOC_FAILED", "allocate"
"""What errors say where there is no room: PyTorch's own, the driver's, cuBLAS's and a processor's."""

Watcher = Callable[[Sequence[Served], float], None]
"""Is told of every batch: the rows as they were answered, and the seconds it took."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A picture of a row, or its error; how long the row waited; the pixels left to it."""

    ask: Ask | RequestError
    waited: float | None
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class _Job:
    """One good picture on its way: what is asked, what was decoded, its clock, and whether its maps are given up."""

    options: Options
    task: Task
    prepared: Prepared
    clock: Clock
    shed: bool


class Pipeline:
    """A loaded model, from rows to answers. One call at a time; calls share nothing but the model."""

    def __init__(
        self,
        settings: Settings,
        preprocessing: Preprocessing,
        engine: Engine,
        labels: Labels,
        card: Card,
        device: torch.device,
        threads: int,
    ) -> None:
        self.settings = settings
        self.preprocessing = preprocessing
        self.engine = engine
        self.labels = labels
        self.card = card
        self.device = device
        self.limits = SizeLimits(settings.max_pixels, settings.max_picture_side, settings.max_aspect_ratio)
        self.budget = Budget(settings.max_decoded_bytes)
        self.shedding = Shedding(settings.shed_after_ms)
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="camserve")
        self.watchers: list[Watcher] = []
        self.tell: Callable[[Callable[[], None]], object] = lambda telling: telling()
        """When watchers are told: before the answers leave, unless something else is put here."""

    @classmethod
    def load(
        cls,
        folder: Path,
        settings: Settings,
        name: str,
        version: str,
        threads: int = 1,
        gpu: int | None = None,
    ) -> Self:
        """The model of an unpacked archive, proven fit to be explained.

        Raises:
            SetupError: a file is missing or wrong, or a gate fails.
        """
        preprocessing = settings.preprocessing
        if preprocessing is None:
            raise SetupError(
                "The preprocessing is not declared: give resize, crop, interpolation, mean and std; "
                "a wrong guess would change predictions without a word."
            )
        labels = load_labels(folder / settings.labels)
        device = choose_device(settings, gpu)
        network = load_network(settings, folder, len(labels), device)
        probe = _probe(preprocessing, device)
        layout = tokens(settings.architecture, network)
        layer = settings.layer or (layout.layer if layout else None)
        folded = fold(network, probe, layer) if settings.fold else frozenset()
        in_fast_order(network)
        if settings.precision == "bfloat16":
            exact = prove(network, probe, len(labels), layer, layout, folded)
            layer = exact.default
            to_bfloat16(network, exact.layers[layer].module, probe)
        pack(network, probe)
        fuse(network, probe)
        engine = prove(network, probe, len(labels), layer, layout, folded)
        if settings.tape and device.type == "cpu":
            engine.record(probe)
        card = Card(name, version, settings.architecture, labels.names)
        return cls(settings, preprocessing, engine, labels, card, device, threads)

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer a row, in order. A row that fails is answered with its own error.

        Raises:
            NetworkLost: no row will be answered any more.
        """
        arrival, start = time.time(), time.perf_counter()
        deadline = Deadline(self.settings.explain_within_ms)
        calls = [_attempt(self._read, row) for row in rows]
        asks = [ask for call in calls if isinstance(call, Call) for ask in self._asked(call, arrival)]
        waits = [ask.waited for ask in asks if ask.waited is not None]
        shed = self.shedding.sheds(max(waits, default=None))  # then the batch is predicted and not explained
        jobs = self._each(partial(self._prepare, shed=shed), asks)
        judged = self._judge([job for job in jobs if isinstance(job, _Job)], deadline)
        finished = iter(self._each(partial(self._draw, deadline=deadline), _paired(jobs, judged)))
        served = [
            self._respond(row, call, finished, len(jobs), _queue_wait(row, arrival))
            for row, call in zip(rows, calls, strict=True)
        ]
        self.tell(partial(self._told, served, time.perf_counter() - start))
        return [one.answer for one in served]

    def _read(self, row: Row) -> Call:
        return read(row, self.settings.max_instances, self.settings.max_option_bytes)

    def _asked(self, call: Call, arrival: float) -> list[_Asked]:
        """A row's pictures, which share what the row waited and the pixels it may have."""
        waited, allowance = _queue_wait(call.row, arrival), Allowance(self.settings.max_request_pixels)
        return [_Asked(ask, waited, allowance) for ask in call.asks]

    def _prepare(self, asked: _Asked, shed: bool) -> _Job:
        """Image bytes to the network's view and the overlay's canvas; the full picture is let go here."""
        one = asked.ask
        if isinstance(one, RequestError):
            raise one
        clock = Clock({"queue": asked.waited})
        limits = self.settings
        most = limits.max_classes, limits.max_forwards, limits.max_channels
        task = plan(one.options, self.engine, self.labels, *most)
        header = inspect(one.image, self.limits)
        asked.allowance.take(header.pixels)
        with self.budget.hold(header.memory):
            with clock.stage("decode"):
                picture = decode(header)
            with clock.stage("preprocess"):
                prepared = self._views(picture, one.options, shed)
        return _Job(one.options, task, prepared, clock, shed)

    def _views(self, picture: Picture, options: Options, shed: bool) -> Prepared:
        """What the network sees and where it lies, and the canvas where a picture is asked for and will be drawn."""
        crop = options.crop
        pixels, (x0, y0, x1, y1) = view(self._cropped(picture, crop), self.preprocessing)
        left, top = crop[:2] if crop else (0, 0)
        drawn = options.explain and not shed and not {"overlay", "heatmap"}.isdisjoint(options.maps)
        return Prepared(
            picture.width,
            picture.height,
            crop,
            (left + x0, top + y0, left + x1, top + y1),
            pixels,
            canvas(picture, options.max_side) if drawn else None,
        )

    def _cropped(self, picture: Picture, crop: tuple[int, int, int, int] | None) -> Picture:
        """The part to look at. As a picture, it may not be too long: its shorter side is enlarged to the model's."""
        if crop is None:
            return picture
        width, height, ratio = crop[2] - crop[0], crop[3] - crop[1], self.limits.aspect_ratio
        if crop[2] > picture.width or crop[3] > picture.height:
            raise InvalidOption(
                f"Option 'crop': expected a box inside the upright {picture.width}x{picture.height} picture, "
                f"got {crop[0]},{crop[1]},{width},{height}."
            )
        if max(width, height) > ratio * min(width, height):
            raise InvalidOption(
                f"Option 'crop': expected a longer side of at most {ratio:g} times the shorter, got {width}x{height}."
            )
        return picture.cropped(crop)

    def _judge(self, jobs: Sequence[_Job], deadline: Deadline) -> list[Verdict | RequestError]:
        """One forward for all rows, then maps for those that ask or whose rule holds."""
        if not jobs:
            return []
        clock, verdicts = Clock(), None
        try:
            verdicts = self._verdicts(jobs, clock, deadline)
        except Exception as error:
            if len(jobs) > 1:
                _log.warning(
                    "camserve: a batch of %d pictures failed and is split: %s", len(jobs), type(error).__name__
                )
            else:
                _log.exception("camserve: the forward failed")
        # Not before here: with the error's traceback goes what the failed forward holds of the GPU.
        if verdicts is None:
            self._ensure_network()
            return self._judge_halves(jobs, deadline)
        for job in jobs:
            for stage, ms in clock.milliseconds.items():
                job.clock.add(stage, ms or 0.0)
        return verdicts

    def _ensure_network(self) -> None:
        """Raises NetworkLost where it fails at what it could at first: after a fault, a GPU is lost to its process."""
        try:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            with torch.inference_mode():
                self.engine.network(_probe(self.preprocessing, self.device)[:1]).cpu()
        except Exception as error:
            if any(shortage in str(error) for shortage in _SHORTAGES):
                return  # there may be room again for the next batch
            raise NetworkLost(type(error).__name__) from error

    def _judge_halves(self, jobs: Sequence[_Job], deadline: Deadline) -> list[Verdict | RequestError]:
        """A batch that failed, in two parts: the GPU had no room for all, or one picture's fault is that one's."""
        if len(jobs) == 1:
            return [InternalError()]
        half = len(jobs) // 2
        return self._judge(jobs[:half], deadline) + self._judge(jobs[half:], deadline)

    def _verdicts(self, jobs: Sequence[_Job], clock: Clock, deadline: Deadline) -> list[Verdict | RequestError]:
        """Predictions and maps of a batch; the stages' times go to `clock`."""
        with clock.stage("preprocess"):
            inputs = to_input([job.prepared.view for job in jobs], self.preprocessing, self.device)
        with clock.stage("forward"):
            asking = [job.task if job.options.explain and not job.shed else None for job in jobs]
            trace = self.engine.forward(inputs, asking)
            scores = trace.logits.detach().float()
            logits, chances = scores.cpu().numpy(), scores.softmax(1).cpu().numpy()
        rule = self.settings.explain_when
        reasons = [trigger(job.options.explain, rule, chance) for job, chance in zip(jobs, chances, strict=True)]
        with clock.stage("explain"):
            tasks = [self._measured(task) if why and task else None for task, why in zip(asking, reasons, strict=True)]
            maps = self.engine.maps(trace, tasks, deadline)
        shed = [why is not None and job.shed for job, why in zip(jobs, reasons, strict=True)]
        return [
            Verdict(*row) if np.isfinite(row[0]).all() else _not_finite()
            for row in zip(logits, chances, reasons, map(tuple, maps), shed, strict=True)
        ]

    def _measured(self, task: Task) -> Task:
        """The task, also to be verified for the metrics if its turn has come and it explains one class plainly."""
        plain = task.how_many == 1 and task.polarity == "positive" and task.contrast is None
        turn = plain and random.random() < self.settings.verify_share  # noqa: S311
        return replace(task, verify=True) if turn else task

    def _draw(self, pair: tuple[_Job | RequestError, Verdict | RequestError | None], deadline: Deadline) -> Outcome:
        """Maps to pictures and regions."""
        job, verdict = pair
        for fault in pair:
            if isinstance(fault, RequestError):
                raise fault
        assert isinstance(job, _Job)
        assert isinstance(verdict, Verdict)
        drawn = [self._drawn(one, job, verdict, deadline) for one in verdict.maps]
        verdict = replace(verdict, maps=tuple(one for one, _, _ in drawn))
        for stage in ("render", "encode"):
            job.clock.add(stage, 0.0)
        return Outcome(
            job.options,
            job.task,
            job.prepared,
            verdict,
            [drawing for _, drawing, _ in drawn],
            [quality for _, _, quality in drawn],
            self.engine.is_exact(job.task.method, job.task.layer),
            job.clock.milliseconds,
        )

    def _drawn(
        self, one: ClassMap, job: _Job, verdict: Verdict, deadline: Deadline
    ) -> tuple[ClassMap, Drawing, Quality | None]:
        """A class's map with its pictures and its quality; the class failed where they cannot be made, or too late."""
        if one.map is None:
            return one, Drawing(), None
        if deadline.passed:
            return replace(one, map=None, failure=LATE), Drawing(), None
        try:
            drawing = draw(one.map, job.options, job.prepared, self.settings.max_overlay_bytes, job.clock)
            return one, drawing, self._quality(one.map, job.task, verdict)
        except Exception:
            _log.exception("camserve: an explanation could not be drawn")
            return replace(one, map=None, failure=FAILED), Drawing(), None

    def _quality(self, signed: Floats, task: Task, verdict: Verdict) -> Quality:
        """How far a map deserves trust."""
        first, second = verdict.best_two
        discriminative = METHODS[task.method].discriminative
        return assess(shown(signed, task.polarity), discriminative, first - second, self.settings.flags)

    def _respond(
        self,
        row: Row,
        call: Call | RequestError,
        finished: Iterator[Outcome | RequestError],
        batch: int,
        waited: float | None,
    ) -> Served:
        """One row's answer, from the outcomes of its pictures."""
        if isinstance(call, RequestError):
            return Served(row.request_id, "predict", waited, (call,), response.error(call))
        own = [next(finished) for _ in call.asks]
        return Served(row.request_id, call.kind, waited, own, self._answer(call, own, batch))

    def _answer(self, call: Call, own: Sequence[Outcome | RequestError], batch: int) -> Answer:
        if call.as_page:
            return inspector(self.card.name, self.card.version, is_native(call.row))
        if call.kind == "describe":
            return response.described(describe(self.card, self.engine, self.settings))
        request_id, limit = call.row.request_id, self.settings.max_answer_bytes
        if call.kind == "kserve":
            return response.kserve(own, self.card, request_id, batch, limit)
        if isinstance(own[0], RequestError):
            return response.error(own[0])
        form = response.picture if call.picture_only else response.single
        return form(own[0], self.card, request_id, batch, limit)

    def _told(self, served: Sequence[Served], seconds: float) -> None:
        """Let whoever watches know what was served; a watcher that fails costs no answer."""
        for watch in self.watchers:
            try:
                watch(served, seconds)
            except Exception:
                _log.exception("camserve: what was served could not be recorded")

    def _each(self, work: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out | RequestError]:
        """`work` on every item, in this thread and the pool's; an item that fails becomes its error."""
        done: dict[int, _Out | RequestError] = {}
        waiting = enumerate(items)  # each thread takes the next

        def take() -> None:
            for place, item in waiting:
                done[place] = _attempt(work, item)

        helpers = [self.pool.submit(take) for _ in range(min(self.threads, len(items)) - 1)]
        take()
        for helper in helpers:
            if not helper.cancel():  # one that has not begun by now has nothing left to do
                helper.result()
        return [done[place] for place in range(len(items))]


def _probe(preprocessing: Preprocessing, device: torch.device) -> torch.Tensor:
    """What pictures of noise become, always the same: 8 x 3 x S x S, put together as those of a batch are."""
    shape = max(BATCHES), preprocessing.crop, preprocessing.crop, 3
    return to_input(list(np.random.default_rng(0).integers(0, 256, shape, np.uint8)), preprocessing, device)


def _attempt(work: Callable[[_In], _Out], item: _In) -> _Out | RequestError:
    """The result, or the row's own error; what is not its fault is logged and told in general words."""
    try:
        return work(item)
    except RequestError as error:
        return error.bare()
    except Exception:
        _log.exception("camserve: a row failed")
        return InternalError()


def _paired(
    jobs: Sequence[_Job | RequestError], judged: Sequence[Verdict | RequestError]
) -> list[tuple[_Job | RequestError, Verdict | RequestError | None]]:
    """Each job with its verdict; rows that failed before have none."""
    waiting = iter(judged)
    return [(job, next(waiting) if isinstance(job, _Job) else None) for job in jobs]


def _not_finite() -> RequestError:
    _log.error("camserve: the network's logits are not finite for a picture")
    return InternalError()


def _queue_wait(row: Row, arrival: float) -> float | None:
    """Milliseconds since the gateway passed the request on (X-Request-Start: t=<ms>), or None."""
    text = row.headers.get("x-request-start", "").removeprefix("t=")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        return None
    waited = arrival * 1e3 - int(text)
    return max(0.0, waited) if waited < _LONGEST_QUEUE_MS else None
