"""What clients see when something dies, hangs, fills up or is taken, while requests keep coming."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import torch
from served import (
    COLOURS,
    DARK,
    GREY,
    RESPONSE_TIMEOUT,
    WHITE,
    Served,
    Try,
    archive,
    begun,
    report,
    served,
    steady,
    under_load,
    until,
)
from traffic import Traffic

import toynets
from camserve import exporter
from camserve import pipeline as pipeline_module
from camserve.cam.engine import Engine
from camserve.stack import Ports
from camserve.stack.child import STEADY
from pictures import encoded, noise
from test_exporter import Worker, requests_total
from toynets import good, row

live = pytest.mark.live


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """stores(n): a store whose model has n workers."""
    made: dict[int, Path] = {}

    def store(workers: int) -> Path:
        if workers not in made:
            made[workers] = tmp_path_factory.mktemp("faults") / "store"
            archive(made[workers], workers)
        return made[workers]

    return store


@pytest.fixture(scope="module")
def pair(stores, tmp_path_factory):
    """Two workers."""
    with served(stores(2), tmp_path_factory.mktemp("pair") / "state") as service:
        service.wait_for(2)
        yield service


# Something is killed


@live
def test_a_killed_worker_costs_no_request(pair, long):
    """Not the one that it has in work either, which the gateway sends again."""
    tries = []
    for _ in range(20 if long else 1):
        for file in _had_the_dark_one(pair).values():
            file.unlink()
        workers, failed, killed, asked = pair.workers, _failed_at_torchserve(pair), [], []
        with ThreadPoolExecutor(1) as client:

            def fault(client=client, killed=killed, asked=asked):
                asked.append(client.submit(pair.ask, DARK))
                killed.append(_kill_who_has_the_dark_one(pair))

            tries.append(under_load(pair, fault, lambda: _replaced(pair, killed[0], 2)))  # noqa: B023  # called here
            assert asked[0].result().top == 0
        assert set(_had_the_dark_one(pair)) == {worker.pid for worker in workers}, "first the one, then the other"
        assert _failed_at_torchserve(pair) > failed, "the gateway was told of a failure, and asked again"
    report("kill -9 of one of two workers", tries)
    assert [one.failed for one in tries] == [[]] * len(tries)


def _kill_who_has_the_dark_one(service: Served) -> psutil.Process:
    """While it sleeps over the dark picture."""
    until(lambda: _had_the_dark_one(service), pause=0.01)
    (pid,) = _had_the_dark_one(service)
    victim = psutil.Process(pid)
    victim.kill()
    return victim


def _had_the_dark_one(service: Served) -> dict[int, Path]:
    """Processes that began to work on a dark picture, each with the file that says so."""
    return {int(file.name.removeprefix("slow-")): file for file in _temporary(service).glob("slow-*")}


def _failed_at_torchserve(service: Served) -> int:
    """Requests that TorchServe answered with the death of a worker."""
    lines = (service.state / "logs" / "access_log.log").read_text().splitlines()
    return sum('HTTP/1.1" 500 ' in line or 'HTTP/1.1" 507 ' in line for line in lines)


@live
def test_a_killed_gateway_is_started_again(pair, long):
    tries = []
    for number in range(10 if long else 1):
        if number:
            time.sleep(STEADY)  # else it counts as one that ends again and again, and the pauses grow
        old = pair.gateway
        # Of the master alone, as the supervisor sees it, or of all there is.
        victims = [old, *(old.children() if number % 2 else [])]

        def fault(victims=victims):
            for victim in victims:
                victim.kill()

        def recovered(old=old):
            until(lambda: _another(lambda: pair.gateway, old) and _answers(pair))

        tries.append(under_load(pair, fault, recovered))
    report("kill -9 of the gateway", tries)
    for one in tries:
        assert {each.fault for each in one.failed} <= {"ConnectionError"}, "those under way, or before it listens again"
        assert one.seen[-1].status == 200
    assert "gateway is started again now" in pair.said


@live
def test_a_killed_torchserve_is_started_again_and_nothing_of_it_is_left(pair, long):
    tries = []
    for number in range(6 if long else 1):
        pair.wait_for(2)
        counted, workers, java = pair.counted(), pair.workers, pair.java
        victim = (java, pair.launcher)[number % 2]

        def recovered(java=java):
            until(lambda: _another(lambda: pair.java, java))
            pair.wait_for(2)

        one = under_load(pair, victim.kill, recovered)
        tries.append(one)
        assert not [process for process in [*workers, java] if process.is_running()]
        assert len(list(_temporary(pair).glob(".ts.sock.*"))) == 2
        answered = sum(each.status == 200 for each in one.seen)
        assert pair.counted() >= counted + answered, "counts go on where they were"
    report("kill -9 of TorchServe", tries)
    for one in tries:
        assert {each.fault or each.status for each in one.failed} <= {503, 504}, "each with Retry-After"
        assert one.seen[-1].status == 200
    assert "TorchServe is started again now" in pair.said


def _another(now: Callable[[], psutil.Process], old: psutil.Process) -> bool:
    """Whether there is one, in place of the old."""
    try:
        return now() != old
    except (psutil.NoSuchProcess, StopIteration):
        return False


def _answers(service: Served) -> bool:
    try:
        return service.ask(COLOURS[0]).status == 200
    except requests.RequestException:
        return False


def _replaced(service: Served, victim: psutil.Process, workers: int) -> None:
    """Until there are as many as before; TorchServe takes a moment to see that one is gone."""
    until(lambda: victim not in service.workers and len(service.workers) == service.ready_workers() == workers)


def _temporary(service: Served) -> Path:
    return Path(service.java.environ()["TEMP"])


# A worker hangs


@live
def test_a_worker_that_hangs_is_replaced_and_the_other_goes_on(pair, long):
    tries = []
    for _ in range(5 if long else 1):
        pair.wait_for(2)
        workers, seen = pair.workers, []

        def fault(seen=seen):
            begin = time.monotonic()
            seen.append(pair.ask(WHITE))
            seen.append(time.monotonic() - begin)

        one = under_load(pair, fault, lambda: pair.wait_for(2))
        reply, seconds = seen
        tries.append(one)
        message = "The model did not answer in time. Try again in a second."
        assert (reply.error, reply.headers["Retry-After"]) == ((504, "Timeout", message), "1")
        assert RESPONSE_TIMEOUT <= seconds < 2 * RESPONSE_TIMEOUT, "not tried at the other worker too"
        assert len(set(workers) & set(pair.workers)) == 1
        shared = [each for each in one.failed if each.status == 504 and each.sent < one.at + 1]
        assert one.failed == shared, "only what was in the same batch fails"
    report("a worker that hangs, of two", tries)


# A network is lost


@live
def test_a_worker_whose_network_is_lost_is_replaced_and_costs_no_request(pair, long):
    """As after a fault of a GPU; its batch is sent again, to the other worker."""
    tries = []
    for _ in range(10 if long else 1):
        (_temporary(pair) / "lost").unlink(missing_ok=True)
        pair.wait_for(2)
        workers, replies = pair.workers, []

        def fault(replies=replies):
            replies.append(pair.ask(GREY))

        tries.append(under_load(pair, fault, lambda: until(lambda: _one_is_new(pair, workers))))  # noqa: B023
        assert replies[0].status == 200
    report("a network that is lost, of two", tries)
    assert [one.failed for one in tries] == [[]] * len(tries)


def _one_is_new(service: Served, workers: Sequence[psutil.Process]) -> bool:
    """Whether one of two workers is another one, and both answer."""
    return len(set(service.workers) & set(workers)) == 1 and len(service.workers) == service.ready_workers() == 2


# One worker, on a small disk


def _may_mount() -> bool:
    """Whether a small disk can be made here."""
    try:
        return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
    except FileNotFoundError:
        return False


MAY_MOUNT = _may_mount()
small_disk = pytest.mark.skipif(not MAY_MOUNT, reason="a disk that can be filled is mounted, which takes root")


@pytest.fixture(scope="module")
def disk():
    """A folder that holds 64 MB where root may mount one, else one like others."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="disk-") as folder:
        if MAY_MOUNT:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "none", folder], check=True)
        try:
            yield Path(folder)
        finally:
            if MAY_MOUNT:
                subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def single(stores, disk):
    """One worker; logs, counts and temporary files lie on the small disk."""
    (disk / "tmp").mkdir()
    with served(stores(1), disk / "state", TMPDIR=str(disk / "tmp")) as service:
        yield service


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    """Not a byte is left."""
    file = disk / "fill"
    with file.open("wb", buffering=0) as filling:
        for size in (2**16, 1):
            with suppress(OSError):
                while True:
                    filling.write(bytes(size))
    assert shutil.disk_usage(disk).free == 0
    try:
        yield
    finally:
        file.unlink()


@live
def test_what_waits_for_the_only_worker_is_answered_by_the_next(single, long):
    tries = []
    for _ in range(10 if long else 1):
        (victim,) = single.workers
        tries.append(under_load(single, victim.kill, lambda: _replaced(single, victim, 1)))  # noqa: B023
    report("kill -9 of the only worker", tries)
    for one in tries:
        assert {each.fault or each.status for each in one.failed} <= {503, 504}, "each with Retry-After"
        assert one.seen[-1].status == 200


@live
def test_a_taken_metrics_port_costs_no_prediction_and_is_used_again(single):
    counted = single.counted()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def take():
            (victim,) = single.workers
            victim.kill()
            until(lambda: _bound(thief, single.ports.scrape))

        one = under_load(single, take, lambda: single.wait_for(1))
        assert {each.fault or each.status for each in one.failed} <= {503, 504}
        refusal = f"camserve: no metrics, because port {single.ports.scrape} cannot be used (Address already in use)"
        assert refusal in (single.state / "logs" / "model_log.log").read_text()
        assert single.ask(COLOURS[1]).top == 1
    until(lambda: _scraped(single))
    assert single.counted() >= counted + sum(each.status == 200 for each in one.seen), "what was counted is there"


def _bound(thief: socket.socket, port: int) -> bool:
    try:
        thief.bind(("127.0.0.1", port))
        thief.listen()
    except OSError:
        return False
    return True


def _scraped(service: Served) -> bool:
    try:
        return "camserve_requests_total" in service.scrape()
    except requests.RequestException:
        return False


@live
@small_disk
def test_a_full_disk_costs_no_prediction(single, disk, long):
    counted = single.counted()
    with _full(disk), Traffic(single.url, steady(*NEW_SERIES), clients=4) as traffic:
        time.sleep(60 if long else 3)
    report("logs, counts and temporary files on a full disk", [Try(time.monotonic(), traffic.seen)])
    assert {each.fault or each.status for each in traffic.seen} == {200}
    answered = len(traffic.seen)
    logged = (single.state / "logs" / "request_log.log").stat().st_size
    assert single.ask(COLOURS[2]).top == 2
    until(lambda: (single.state / "logs" / "request_log.log").stat().st_size > logged)
    assert counted < single.counted() <= counted + answered + 1


@live
@small_disk
def test_a_worker_that_starts_on_a_full_disk_serves_without_metrics(single, disk, long):
    (victim,) = single.workers
    with _full(disk):
        one = under_load(single, victim.kill, lambda: _replaced(single, victim, 1))
        assert single.ask(noise_body()).status == 503, "a body that has to be kept has no room"
    report("kill -9 of the only worker on a full disk", [one])
    assert {each.fault or each.status for each in one.failed} <= {503, 504}
    assert one.seen[-1].status == 200
    assert single.ask(noise_body()).status == 200


@small_disk
def test_what_a_dead_worker_counted_survives_a_full_disk(disk):
    folder, port = disk / "counts", Ports.free().scrape
    folder.mkdir()
    one = Worker(folder, port)
    one.count("requests", 3, "false", "ok")
    one.kill()
    for gauge in folder.glob("gauge*"):
        gauge.unlink()  # else it may be the room that is missing
    with _full(disk):
        exporter.forget_the_dead(folder)
    two = Worker(folder, port)
    try:
        assert requests_total(port) == 3
    finally:
        two.kill()


NEW_SERIES = [
    f"?explain=true&maps=grid&method={method}" for method in ("gradcam%2B%2B", "layercam", "hirescam", "xgradcam")
]
"""Each counts in places that were not there before."""


def noise_body() -> bytes:
    """A picture larger than what the gateway keeps in memory."""
    return encoded(noise(700, 700))


# TorchServe gives up


@live
def test_a_torchserve_that_gave_its_workers_up_is_started_again(tmp_path):
    """Something cleaned the temporary folder: no worker can load the model any more."""
    archive(tmp_path / "store", 1, patience=5)
    with served(tmp_path / "store", tmp_path / "state") as service:
        java = service.java
        shutil.rmtree(_temporary(service) / "models")
        service.workers[0].kill()
        until(lambda: _another(lambda: service.java, java))
        service.wait_for(1)
        assert service.ask(COLOURS[0]).top == 0
        assert "TorchServe gave up its workers: see " in service.said


# Nothing is lost on the way down


@live
def test_what_is_under_way_is_answered_before_the_end(stores, tmp_path, long):
    asked = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "camserve stop": None}
    for number in asked.values() if long else [signal.SIGTERM]:
        state = tmp_path / f"state-{number}"
        with served(stores(1), state) as service, Traffic(service.url, steady(), clients=8) as traffic:
            time.sleep(1)
            at = time.monotonic()
            if number is None:
                subprocess.run([sys.executable, "-m", "camserve.cli", "stop", f"--state={state}"], check=True)
            else:
                service.process.send_signal(number)
            assert service.process.wait(60) == 0
            time.sleep(0.5)
        under_way = [each for each in traffic.seen if each.sent <= at]
        assert under_way
        assert [each for each in under_way if each.status != 200 or each.fault] == []
        assert {each.fault for each in traffic.seen if each.sent > at} <= {None, "ConnectionError"}


# What cannot run says why


def _truncated(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])


def _rewritten(change: Callable[[dict[str, bytes]], None]) -> Callable[[Path], None]:
    """Changes an archive's files."""

    def rewrite(archive: Path) -> None:
        with zipfile.ZipFile(archive) as old:
            files = {name: old.read(name) for name in old.namelist()}
        change(files)
        with zipfile.ZipFile(archive, "w") as new:
            for name, content in files.items():
                new.writestr(name, content)

    return rewrite


def _wrong_shape(files: dict[str, bytes]) -> None:
    weights = io.BytesIO()
    state = torch.load(io.BytesIO(files["weights.pt"]), weights_only=True)
    torch.save({name: tensor[:2] for name, tensor in state.items()}, weights)
    files["weights.pt"] = weights.getvalue()


BROKEN: dict[str, tuple[Callable[[Path], None], dict[str, str], str]] = {
    "half a file": (_truncated, {}, "is not a model archive, or only a part of one: build it again."),
    "one label too many": (_rewritten(lambda files: files.update({"labels.txt": b"a\nb\nc\nd\n"})), {}, "labels"),
    "no weights": (_rewritten(lambda files: files.pop("weights.pt")), {}, "weights"),
    "weights of another shape": (_rewritten(_wrong_shape), {}, "weights"),
    "a setting that is none": (lambda archive: None, {"CAMSERVE_MAX_CLASSES": "many"}, "max_classes"),
    "a port that is none": (lambda archive: None, {"CAMSERVE_SCRAPE_PORT": "metrics"}, "CAMSERVE_SCRAPE_PORT"),
}


@live
def test_what_is_broken_stops_the_start_with_one_sentence(stores, tmp_path, long):
    whole = next(stores(1).glob("*.mar"))
    for name, (change, environment, expected) in BROKEN.items():
        if not long and name not in SHORT:
            continue
        store = tmp_path / name / "store"
        store.mkdir(parents=True)
        shutil.copy(whole, store)
        change(store / whole.name)
        console = tmp_path / name / "console"
        begun_process = begun(store, tmp_path / name / "state", Ports.free(), console, **environment)
        assert begun_process.wait(240) == 1, name
        said = [line for line in console.read_text().splitlines() if not line.startswith("Waiting for the model")]
        print(f"\n{name}: {said}")
        assert len(said) == 1, name
        assert said[0].startswith("camserve: "), name
        assert expected in said[0], name


SHORT = ("half a file", "one label too many", "a port that is none")


# The GPU is full, by injection


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.")


ASKED = {
    "_maps": {},
    "_gradients": {"layer": "early"},
    "_class_maps": {},
    "_forwards": {"method": "scorecam"},
    "_input_map": {"method": "saliency"},
}
"""Parts of the engine, and what a request asks that needs them."""


@pytest.fixture(scope="module")
def willing(tmp_path_factory):
    """The seeded network with every method allowed."""
    return toynets.loaded(tmp_path_factory.mktemp("willing"), max_forwards=100)


@pytest.mark.parametrize("part", ASKED)
def test_no_room_for_maps_costs_no_prediction(willing, monkeypatch, part):
    plain = good(willing.answer([row()])[0])["predictions"]
    monkeypatch.setattr(Engine, part, full)
    answers = [good(one) for one in willing.answer([row(explain="true", **ASKED[part]), row()])]
    for found in answers:
        for one, other in zip(found["predictions"], plain, strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
    assert answers[0]["explanation"]["status"] == "failed"
    (entry,) = answers[0]["explanation"]["classes"]
    assert entry["reason"] == "The explanation failed; the server's log has the reason."
    assert "explanation" not in answers[1]
    assert answers[0]["batch_size"] == 2, "the batch was not split"


@pytest.mark.parametrize("part", ["draw", "assess"])
def test_a_map_that_cannot_be_drawn_costs_no_prediction(seeded, monkeypatch, part):
    plain = good(seeded.answer([row()])[0])["predictions"]

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pipeline_module, part, broken)
    found = good(seeded.answer([row(explain="true")])[0])
    assert found["predictions"] == plain
    assert found["explanation"]["status"] == "failed"


def test_a_batch_is_split_only_when_the_failed_forward_was_let_go(tmp_path):
    """What a traceback holds of the GPU is not there for the smaller batch."""
    cramped = toynets.loaded(tmp_path, toynets.SEEDED, "Cramped")
    cramped.engine.tape = None  # as on a GPU
    network, held = cramped.engine.network, []
    network.room = 2
    plain = type(network).forward

    def forward(self, x):
        large = x + 0
        assert not [one for one in held if one() is not None], "memory of a forward that failed"
        held.append(weakref.ref(large))
        return plain(self, large)

    type(network).forward = forward
    try:
        answers = cramped.answer([row() for _ in range(8)])
    finally:
        type(network).forward = plain
    assert [one.status for one in answers] == [200] * 8
