"""The local processes: plain sentences when they cannot run, and nothing left behind when they stop."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import psutil
import pytest
import requests

from camserve.errors import StackError
from camserve.stack import Ports, Stack, commands, register, serve, start, stop, torchserve
from camserve.stack.child import Child
from camserve.stack.entrance import Entrance
from camserve.stack.errors import load_failure
from camserve.stack.gateway import render, write_configuration
from echo_stack import build_archive, echo_stack


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack") / "archives"
    build_archive(folder)
    return folder


@pytest.fixture(autouse=True)
def temporary(monkeypatch, tmp_path_factory):
    """A temporary folder of this test's own, with a short name: worker sockets have to fit."""
    tmp_path_factory.getbasetemp()  # pytest's own stays where it is
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


# Ports


def test_free_ports_are_distinct():
    ports = Ports.free()
    assert (
        len({ports.gateway, ports.inference, ports.management, ports.metrics, ports.grpc, ports.grpc_management}) == 6
    )


def test_ports_come_from_the_environment():
    environment = {"CAMSERVE_GATEWAY_PORT": "9000", "CAMSERVE_GRPC_MANAGEMENT_PORT": "9001", "CAMSERVE_GRPC_PORT": ""}
    assert Ports.from_environment(environment) == Ports(gateway=9000, grpc_management=9001)


@pytest.mark.parametrize(("given", "found"), [({}, torchserve.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_wait_for_a_moment_unless_they_are_told_how_long(given, found, tmp_path):
    assert torchserve.environment(given, Ports(), tmp_path, tmp_path)["GOMP_SPINCOUNT"] == found


@pytest.mark.parametrize("value", ["0", "65536", "-1", "8080.0", "http", "²"])
def test_a_port_that_is_no_number_is_refused(value):
    with pytest.raises(StackError, match=r"^CAMSERVE_METRICS_PORT is .*: a port is a number from 1 to 65535\.$"):
        Ports.from_environment({"CAMSERVE_METRICS_PORT": value})


@pytest.mark.parametrize(("field", "variable"), [("gateway", "CAMSERVE_GATEWAY_PORT"), ("grpc", "CAMSERVE_GRPC_PORT")])
def test_a_port_in_use_is_named_with_the_variable_that_changes_it(field, variable):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        ports = Ports(**{**vars(Ports.free()), field: number})
        with pytest.raises(StackError, match=rf"^Port {number} is in use: .* set {variable} to another port\.$"):
            ports.check_free()


# What keeps it from starting


def test_a_missing_archive_is_one_sentence(tmp_path):
    with pytest.raises(
        StackError, match=r"^There is no model archive .*/echo\.mar: build it with `camserve archive`\.$"
    ):
        echo_stack(tmp_path, tmp_path / "state").start()


def test_half_an_archive_is_one_sentence(tmp_path, archives):
    whole = (archives / "echo.mar").read_bytes()
    (tmp_path / "echo.mar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StackError, match="is not a model archive, or only a part of one"):
        echo_stack(tmp_path, tmp_path / "state").start()


def test_a_disk_that_takes_nothing_is_one_sentence_and_leaves_nothing(archives, tmp_path, temporary):
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StackError, match=r"^The processes could not be started: Not a directory \(.*state/logs\)\.$"):
        echo_stack(archives, tmp_path / "state").start()
    assert not list(temporary.iterdir())


def test_a_template_with_an_unknown_value_is_refused():
    with pytest.raises(StackError, match="CAMSERVE_NEW, which nothing sets"):
        render("listen ${CAMSERVE_NEW};", {})


def test_values_are_filled_in_as_they_stand():
    assert render(r"a ${CAMSERVE_A} $uri", {"CAMSERVE_A": r"\1 $uri"}) == r"a \1 $uri $uri"


@pytest.mark.parametrize(
    ("allowed", "files", "connections"), [(resource.RLIM_INFINITY, 10240, 4096), (1024, 1024, 512)]
)
def test_the_gateway_asks_for_no_more_files_than_it_may_open(monkeypatch, tmp_path, allowed, files, connections):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, allowed))
    (tmp_path / "template").write_text("")
    write_configuration(tmp_path, tmp_path, tmp_path / "template", {}, Entrance(8080))
    frame = (tmp_path / "nginx.conf").read_text()
    assert f"worker_rlimit_nofile {files};" in frame
    assert f"worker_connections {connections};" in frame


# Why a model did not load


def log(*messages):
    return "\n".join(f"2026-01-01T00:00:00,000 [INFO ] W-9000-m_1.0-stdout MODEL_LOG - {each}" for each in messages)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["Torch worker started."], None),
        (["camserve: the layer is not spatial.", "Traceback"], "the layer is not spatial."),
        (["Handling ValueError", "ValueError: a warning of a model that loads"], None),
        (["Backend worker process died.", "Traceback (most recent call last):"], None),
        (
            ["Backend worker process died.", "ModuleNotFoundError: No module named 'a'", "ModuleNotFoundError: 'ts.b'"],
            "ModuleNotFoundError: No module named 'a'",
        ),
    ],
)
def test_the_reason_stands_in_the_log(messages, reason):
    assert load_failure(log(*messages)) == reason


# The first request


class Busy(BaseHTTPRequestHandler):
    """A gateway whose workers shed the first explanations."""

    statuses: ClassVar[list[str]] = []

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        body = json.dumps({"predictions": [], "explanation": {"status": status}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("statuses", "busy", "expected"),
    [(["ok", "shed"], 60, "ok"), (["shed", "shed", "ok"], 60, "ok"), (["shed"], 0.01, "shed")],
    ids=["explained", "busy for a while", "busy"],
)
def test_the_first_request_is_sent_again_while_its_explanation_is_shed(tmp_path, monkeypatch, statuses, busy, expected):
    (tmp_path / "cat.jpg").write_bytes(b"jpeg")
    monkeypatch.setattr(Busy, "statuses", statuses)
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack = SimpleNamespace(model="toy", entrance=Entrance(server.server_port))
        answer = commands.first_request(stack, tmp_path / "cat.jpg", busy)
        server.shutdown()
    assert answer["explanation"]["status"] == expected


class Ready(Stack):
    """A stack that needs no processes, and is interrupted once it is watched."""

    def start(self):
        pass

    def wait_ready(self, *_):
        pass

    def watch(self, say=print):
        raise KeyboardInterrupt


LATE = {"class_id": 281, "status": "failed", "reason": "The batch had no time left."}


@pytest.mark.parametrize(
    ("explanation", "reason"),
    [
        ({"status": "shed"}, "not drawn, because requests wait; ask again"),
        ({"status": "failed", "classes": [LATE]}, "not drawn: The batch had no time left."),
    ],
    ids=["shed", "failed"],
)
def test_a_model_whose_explanation_is_not_drawn_is_served(tmp_path, monkeypatch, capsys, explanation, reason):
    tabby = {"class_id": 281, "label": "tabby", "probability": 0.62}
    answer = {"predictions": [tabby], "explanation": explanation}
    monkeypatch.setattr(commands, "first_request", lambda stack, picture: answer)
    (tmp_path / "state").mkdir()
    stack = Ready(tmp_path, "toy", "toy.mar", Ports.free(), tmp_path, tmp_path / "state")
    serve(stack, tmp_path / "cat.jpg", tmp_path / "overlay.jpg")
    said = capsys.readouterr().out
    assert "62.0%    281  tabby" in said
    assert f"What it looked at: {reason}\n" in said
    assert not (tmp_path / "overlay.jpg").exists()


# The note of what runs


@pytest.fixture
def running():
    """A process that is noted in nobody's state folder yet."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


def test_a_folder_whose_service_runs_is_refused_and_left_as_it_is(archives, tmp_path, running):
    register.keys(tmp_path).mkdir()
    (tmp_path / "serve.log").write_text("the first one's")
    register.write(tmp_path, tmp_path / "private", [running.pid])
    noted = (tmp_path / "processes.json").read_bytes()
    refusal = rf"^A service already runs with the folder .* \(process {running.pid}\): stop it with `camserve stop`"
    with pytest.raises(StackError, match=refusal):
        start([sys.executable, "-c", ""], tmp_path)
    with pytest.raises(StackError, match=refusal):
        echo_stack(archives, tmp_path).start()
    assert (tmp_path / "serve.log").read_text() == "the first one's"
    assert (tmp_path / "processes.json").read_bytes() == noted
    assert register.keys(tmp_path).exists()


def test_what_runs_is_found_after_the_clock_was_set(tmp_path, monkeypatch, running):
    register.write(tmp_path, tmp_path / "private", [running.pid])
    boot = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 3600)
    assert psutil.boot_time() == boot + 3600
    assert [process.pid for process in register.read(tmp_path)] == [running.pid]


# The processes


@pytest.fixture
def children():
    """children(): the processes begun since; other tests' servers may be running beside them."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [process for process in psutil.Process().children(recursive=True) if process not in before]


@pytest.mark.live
def test_a_refusal_of_the_handler_is_passed_on(archives, tmp_path):
    stack = echo_stack(archives, tmp_path / "state", ECHO_REFUSAL="camserve: the labels do not fit the head.")
    with stack, pytest.raises(StackError, match=r"^The model did not load: the labels do not fit the head\. \(see "):
        stack.wait_ready()


@pytest.mark.live
def test_a_handler_that_cannot_be_imported_names_the_cause(archives, tmp_path):
    stack = echo_stack(archives, tmp_path / "state", ECHO_BROKEN="1")
    with stack, pytest.raises(StackError, match="No module named 'no_such_module_anywhere'"):
        stack.wait_ready()


@pytest.mark.live
def test_an_old_refusal_in_the_log_does_not_count(archives, tmp_path):
    stack = echo_stack(archives, tmp_path / "state")
    stack.logs.mkdir(parents=True)
    (stack.logs / "model_log.log").write_text(log("camserve: yesterday's refusal.") + "\n")
    with stack:
        stack.wait_ready()


@pytest.mark.live
def test_stop_leaves_no_process_and_no_folder(archives, tmp_path, temporary, children):
    seen = []
    with echo_stack(archives, tmp_path / "state with 'blanks'") as stack:
        stack.wait_ready(on_progress=seen.append)
        started = children()
        assert {"java", "nginx"} <= {process.name() for process in started}
        assert len(list(temporary.iterdir())) == 1
    assert seen == sorted(seen)
    assert seen
    assert not [process for process in started if process.is_running()]
    assert not list(temporary.iterdir())
    stack.ports.check_free()


@pytest.mark.live
def test_the_end_waits_for_an_answer_and_not_for_a_silent_client(archives, tmp_path, monkeypatch):
    monkeypatch.setattr("camserve.stack.child.IDLE", 0.1)
    answers = []
    with echo_stack(archives, tmp_path / "state") as stack:
        stack.wait_ready()

        def ask():
            answers.append(requests.post(f"{stack.url}/predictions/echo", data='{"wish": 1, "sleep": 3}', timeout=9))

        asking = threading.Thread(target=ask)
        asking.start()
        silent = socket.create_connection(("127.0.0.1", stack.ports.gateway))
        time.sleep(0.5)
        began = time.monotonic()
    asking.join()
    silent.close()
    assert answers[0].status_code == 200
    assert time.monotonic() - began < 25, "nginx itself waits 30 seconds for its first word"


@pytest.mark.live
def test_a_process_that_ends_at_the_first_start_is_told(archives, tmp_path):
    stack = echo_stack(archives, tmp_path / "state", CAMSERVE_MAX_BODY="much")
    with stack, pytest.raises(StackError, match=r'^gateway ended: .*"client_max_body_size" .* \(status 1, see '):
        stack.wait_ready()


@pytest.mark.live
def test_processes_that_end_later_are_started_again(archives, tmp_path, children):
    said: list[str] = []
    with echo_stack(archives, tmp_path / "state") as stack:
        stack.wait_ready()
        watching = threading.Thread(target=watch, args=(stack, said))
        watching.start()
        first = register.read(tmp_path / "state")
        for process in children():
            if process.name() in ("nginx", "java"):
                process.kill()
        deadline = time.monotonic() + 120
        while len(said) < 2 or requests_fail(stack):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = register.read(tmp_path / "state")
        stack.interrupt()
        watching.join()
    endings = sorted((line.split(" ended: ")[0], line.split("; ")[-1]) for line in said)
    assert endings == [(name, f"{name} is started again now.") for name in ("TorchServe", "gateway")]
    assert first[0] == second[0]
    assert len(second) == 3
    assert not set(first[1:]) & set(second[1:]), "`camserve stop` finds the new ones"
    assert not [process for process in second[1:] if process.is_running()]


def test_the_gateways_log_begins_anew_where_it_is_too_large(archives, tmp_path, monkeypatch):
    monkeypatch.setattr("camserve.stack.processes.LARGEST_LOG", 2_000)
    log, old = tmp_path / "state/logs/gateway.log", tmp_path / "state/logs/gateway.log.1"
    with echo_stack(archives, tmp_path / "state") as stack:
        stack.wait_ready()
        watching = threading.Thread(target=watch, args=(stack, []))
        watching.start()
        deadline = time.monotonic() + 60
        while not old.exists():
            assert requests.get(f"{stack.url}/before", timeout=9).status_code == 404
            assert time.monotonic() < deadline
        while not (log.exists() and "GET /behind" in log.read_text()):
            assert requests.get(f"{stack.url}/behind", timeout=9).status_code == 404
            assert time.monotonic() < deadline
            time.sleep(0.5)
        stack.interrupt()
        watching.join()
    assert "GET /before" in old.read_text()


def watch(stack: Stack, said: list[str]) -> None:
    with suppress(KeyboardInterrupt):
        stack.watch(said.append)


def requests_fail(stack: Stack) -> bool:
    try:
        return not requests.post(f"{stack.url}/predictions/echo", data="picture", timeout=9).ok
    except requests.RequestException:
        return True


def test_what_ends_again_and_again_is_started_less_and_less_often(tmp_path, monkeypatch):
    one = Child("one", [sys.executable, "-c", "print('no'); raise SystemExit(3)"], {}, tmp_path, tmp_path / "console")
    pauses = []
    for _ in range(7):
        one.start()
        while not one.ended:
            time.sleep(0.01)
        pauses.append(one.pause())
    assert pauses == [0, 0.5, 1, 2, 4, 8, 8]
    assert one.fate == f"one ended: no (status 3, see {tmp_path / 'console'})"
    assert (tmp_path / "console").read_text() == 7 * "no\n"
    monkeypatch.setattr("camserve.stack.child.STEADY", 0)
    assert one.pause() == 0, "it ran for long"
    monkeypatch.setattr("camserve.stack.child.STEADY", 60)
    assert one.pause() == 0.5, "and then could not be started"


# The process that `start` begins is meant to outlive whoever began it.
outlives = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function Popen:pytest.PytestUnraisableExceptionWarning"
)

SERVE = """
import sys
from pathlib import Path
from echo_stack import echo_stack
from camserve.errors import StackError
from camserve.stack import commands, serve
answer = {"predictions": [{"class_id": 281, "label": "tabby", "probability": 0.62}],
          "explanation": {"status": "ok", "classes": [{"overlay": {"data": "anBlZw=="}}]}}
commands.first_request = lambda stack, picture: answer
folder = Path(sys.argv[1])
try:
    serve(echo_stack(Path(sys.argv[2]), folder / "state"), folder / "cat.jpg", folder / "overlay.jpg", 60)
except StackError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def serve_command(tmp_path, archives, monkeypatch):
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent / "handler")]))
    return [sys.executable, "-c", SERVE, str(tmp_path), str(archives)]


@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["starting", "ready"])
def test_a_signal_stops_everything(serve_command, tmp_path, number, when):
    with subprocess.Popen(serve_command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        awaited = {"starting": "Waiting for the model", "ready": "Next: curl"}[when]
        said = next(line for line in child.stdout if awaited in line)
        assert said
        started = psutil.Process(child.pid).children(recursive=True)
        assert started
        child.send_signal(number)
        child.send_signal(number)
        assert child.wait(30) == 0
    assert not [process for process in started if process.is_running()]
    assert (tmp_path / "overlay.jpg").exists() == (when == "ready")


@pytest.mark.live
@outlives
def test_start_returns_when_ready_and_stop_ends_it(serve_command, tmp_path, capfd, children):
    start(serve_command, tmp_path / "state", 60)
    assert "62.0%    281  tabby" in capfd.readouterr().out
    assert (tmp_path / "overlay.jpg").read_bytes() == b"jpeg"
    started = children()
    assert stop(tmp_path / "state")
    psutil.wait_procs(started, timeout=5)
    assert not [process for process in started if process.is_running()]
    assert not stop(tmp_path / "state")


@pytest.mark.live
@outlives
def test_stop_ends_what_a_killed_serve_left(serve_command, tmp_path, temporary, children):
    start(serve_command, tmp_path / "state", 60)
    started = children()
    serving = next(process for process in started if process.ppid() == os.getpid())
    serving.kill()
    serving.wait()
    assert stop(tmp_path / "state")
    assert not [process for process in started if process.is_running()]
    assert not list(temporary.iterdir())
    assert not (tmp_path / "state" / "keys").exists()
