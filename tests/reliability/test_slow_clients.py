"""Clients that drip, stand still, stop reading or are gone: nobody waits for them, and the gateway lets them go."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import psutil
import pytest
import requests
from footprint import MIB, Watch, files_without_a_name, open_files, processes, within, workers_of_nginx
from service import CONFIG, Reply
from traffic import Ask, Traffic

from camserve.stack import Ports, gateway
from camserve.stack.entrance import Entrance
from echo_stack import build_archive, echo_stack

pytestmark = pytest.mark.live

CLIENT_TIMEOUT, IDLE_TIMEOUT = 5, 6
"""Seconds that the gateway is told; 30 and 75 unless it is."""

PATIENCE = 30
"""Seconds within which it has to have let go; far more than it takes."""

DELAY = 4.5
"""Seconds within which others have to be answered: who waits for a slow client waits for its timeout. It takes
milliseconds on a machine with nothing else to do."""

SPARE = 70
"""Open files of the gateway that come and go: connections to TorchServe that are kept."""

HEAD = b"POST /predictions/echo HTTP/1.1\r\nHost: x\r\n"
IDLE, STALLED, UNREAD, GONE = 1200, 200, 20, 120


@pytest.fixture(scope="module", autouse=True)
def _enough_files():
    """This process, too, needs a descriptor for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard == resource.RLIM_INFINITY else min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow-clients")
    build_archive(folder / "archives", queue=200)
    timeouts = {"CAMSERVE_CLIENT_TIMEOUT": f"{CLIENT_TIMEOUT}s", "CAMSERVE_IDLE_TIMEOUT": f"{IDLE_TIMEOUT}s"}
    with echo_stack(folder / "archives", folder / "state", **timeouts) as running:
        running.wait_ready(120)
        yield running


@pytest.fixture(scope="module")
def nginx(stack):
    return processes(stack)["gateway"]


# What is looked at


def is_answered(body: bytes) -> Callable[[Reply], None]:
    def check(reply: Reply) -> None:
        assert reply.status == 200
        assert json.loads(reply.body)["length"] == len(body)

    return check


def good(length: int) -> Ask:
    body = b"x" * length
    return Ask("/predictions/echo", body, check=is_answered(body), kind="good")


def steadily() -> Iterator[Ask]:
    """Fifty a second at most."""
    for ask in repeat(good(1000)):
        time.sleep(0.02)
        yield ask


@contextmanager
def others_are_answered(stack):
    """While the block runs, other clients get their answers, and none waits."""
    with Traffic(stack.url, steadily(), 2) as others:
        yield
    assert set(others.outcomes) == {"200"}
    assert max(one.seconds for one in others.seen) < DELAY


@contextmanager
def all_is_given_back(nginx):
    """After the block the gateway has as few files open as before, and no body or answer on disk."""
    before = open_files(nginx)
    with Watch({"gateway": nginx}) as memory:
        yield memory
        assert within(PATIENCE, lambda: open_files(nginx) <= before + SPARE), "connections stay open"
    assert files_without_a_name(nginx) == 0
    assert memory.growth["gateway"] < 64


# Clients


@asynccontextmanager
async def opened(stack, data: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which this was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.gateway)
    try:
        writer.write(data)
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the gateway closes the connection, which it has to do."""
    got = b""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                got += chunk
    return got


async def stalls(stack, data: bytes) -> tuple[bytes, float]:
    """What a client gets that says no more than this, and after how many seconds."""
    began = time.monotonic()
    async with opened(stack, data) as (reader, _):
        return await closed(reader), time.monotonic() - began


async def drips(stack, data: bytes, seconds: float, pause: float) -> tuple[bytes, float]:
    """The same for one that sends a byte now and then, for so long."""
    async with opened(stack, data) as (reader, writer):
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() < began + seconds and not reader.at_eof():
                await asyncio.sleep(pause)
                writer.write(b"x")
                await writer.drain()
        return await closed(reader), time.monotonic() - began


async def idles(stack, door: asyncio.Semaphore) -> float:
    """For how many seconds a connection is kept that has had its one answer."""
    async with AsyncExitStack() as left:
        async with door:
            began = time.monotonic()
            asked = b"GET /page/gateway.json HTTP/1.1\r\nHost: x\r\n\r\n"
            reader, _ = await left.enter_async_context(opened(stack, asked))
            await reader.readuntil(b'"}')
        assert await closed(reader) == b""
        return time.monotonic() - began


def all_idle(stack) -> list[float]:
    """The same for so many; they come a few at a time, so that none is late with its request."""
    door = asyncio.Semaphore(50)
    return together(*(idles(stack, door) for _ in range(IDLE)))


def together(*clients):
    async def run():
        return await asyncio.gather(*clients)

    # In a thread of its own: where a browser was driven before, this one's loop is still there.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


# Slow uploads


def test_two_hundred_dripping_uploads_keep_nobody_waiting_and_torchserve_sees_none(stack, nginx):
    java = processes(stack)["Java"]
    started = HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 100_000
    seen = []

    async def look():
        await asyncio.sleep(CLIENT_TIMEOUT)
        seen.append((files_without_a_name(nginx), open_files(java)))

    connected = open_files(java)
    with others_are_answered(stack), all_is_given_back(nginx):
        *ends, _ = together(*(drips(stack, started, 1.5 * CLIENT_TIMEOUT, 0.4) for _ in range(STALLED)), look())
    assert [got for got, _ in ends] == [b""] * STALLED
    assert min(seconds for _, seconds in ends) > 1.5 * CLIENT_TIMEOUT, "a client that goes on is not cut off"
    (bodies, connections) = seen[0]
    assert bodies == STALLED, "what has come of each lies on disk, not in memory"
    assert connections < connected + STALLED / 4


def test_headers_may_not_drip(stack, nginx):
    """Their time counts from the first byte: they are short."""
    with others_are_answered(stack), all_is_given_back(nginx):
        ends = together(*(drips(stack, HEAD + b"X-Slow: ", PATIENCE, 0.4) for _ in range(STALLED)))
    assert [got for got, _ in ends] == [b""] * STALLED
    assert max(seconds for _, seconds in ends) < PATIENCE


# Half-open connections

HALVES = {
    "silent": b"",
    "half a request line": b"POST /predictions/ec",
    "a request line": HEAD.partition(b"Host")[0],
    "headers without an end": HEAD,
    "a body promised": HEAD + b"Content-Length: 1000\r\n\r\n",
    "a body begun": HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 500,
    "a chunked body promised": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    "a chunk begun": HEAD + b"Transfer-Encoding: chunked\r\n\r\n100\r\nxxx",
    "a body that waits for its 100": HEAD + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
}


def test_half_open_connections_are_closed_without_an_answer(stack, nginx):
    with others_are_answered(stack), all_is_given_back(nginx):
        ends = together(*(stalls(stack, half) for half in HALVES.values() for _ in range(25)))
    assert {got for got, _ in ends} == {b"", b"HTTP/1.1 100 Continue\r\n\r\n"}
    assert min(seconds for _, seconds in ends) > 0.8 * CLIENT_TIMEOUT


# Clients that do not wait for their answer


def asking(stack, **wish) -> socket.socket:
    """A connection on which the handler was asked to behave like that; it takes little of the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", stack.ports.gateway))
    body = json.dumps({"wish": 1, **wish}).encode()
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    connection.settimeout(PATIENCE)
    return connection


def drained(connection: socket.socket) -> int:
    """How many bytes are left to read."""
    count = 0
    with suppress(ConnectionError):
        while chunk := connection.recv(65536):
            count += len(chunk)
    return count


def peers(nginx: list[psutil.Process]) -> set[int]:
    """Ports that it is connected with."""
    return {one.raddr.port for each in nginx for one in each.net_connections("tcp4") if one.raddr}


def unsent(stack) -> list[psutil._common.sconn]:
    """Connections that the gateway closed and the system still keeps for what they have to send."""
    waiting = {psutil.CONN_FIN_WAIT1, psutil.CONN_LAST_ACK}
    return [
        one
        for one in psutil.net_connections("tcp4")
        if one.laddr and one.laddr.port == stack.ports.gateway and one.status in waiting
    ]


def small_buffers(folder: Path) -> None:
    """The system takes little of an answer in advance, on this machine and any other."""
    template = (folder / "gateway.conf").read_text()
    assert " default_server;" in template
    (folder / "gateway.conf").write_text(template.replace(" default_server;", " default_server sndbuf=64k;"))


def test_answers_that_nobody_reads_are_given_up(stack):
    length = 2_000_000
    with beside(stack, main=small_buffers) as patient, ExitStack() as readers, all_is_given_back(patient.nginx):
        unread = [readers.enter_context(asking(patient, answer_bytes=length)) for _ in range(UNREAD)]
        for one in unread:
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
        with others_are_answered(patient):
            ours = {one.getsockname()[1] for one in unread}
            assert within(PATIENCE, lambda: not ours & peers(patient.nginx))
            assert not unsent(patient)
        assert all(drained(one) < length for one in unread)


def test_clients_that_are_gone_after_sending_cost_nobody_an_answer(stack, nginx):
    reset = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # SO_LINGER: on, no seconds
    with others_are_answered(stack), all_is_given_back(nginx):
        for number in range(GONE):
            one = asking(stack, sleep=0.01, answer_bytes=100_000)
            if number % 3 == 1:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            if number % 3 == 2:
                one.recv(1000)  # and gone in the middle of the answer
            one.close()
        time.sleep(0.5)


# Idle connections


def test_idle_connections_are_kept_for_their_time_and_keep_nobody_out(stack, nginx):
    with others_are_answered(stack), all_is_given_back(nginx):
        kept = all_idle(stack)
    assert len(kept) == IDLE
    assert min(kept) > 0.8 * IDLE_TIMEOUT, "some were closed to make room"


def test_the_containers_nginx_keeps_as_many(stack):
    with beside(stack, main=relocated, CAMSERVE_IDLE_TIMEOUT=f"{CLIENT_TIMEOUT}s") as container:
        kept = all_idle(container)
    assert min(kept) > 0.8 * CLIENT_TIMEOUT


# A second gateway before the same TorchServe


@dataclass(frozen=True)
class Beside:
    url: str
    ports: Ports
    nginx: list[psutil.Process]


@contextmanager
def beside(
    stack,
    main: Callable[[Path], None] = lambda folder: None,
    under: tuple[str, ...] = (),
    **values: str,
) -> Iterator[Beside]:
    """Another nginx with other values; `main` may change its folder, `under` is what runs it."""
    folder, ports = Path(tempfile.mkdtemp(prefix="beside-")), Ports.free()
    folder.chmod(0o711)
    values = {**stack._gateway_values(), "CAMSERVE_LISTEN": str(ports.gateway), **values}
    gateway.write_configuration(folder, stack.logs, CONFIG / "nginx.conf.template", values, Entrance(ports.gateway))
    main(folder)
    process = subprocess.Popen([*under, *gateway.command(folder)], stdout=subprocess.DEVNULL)
    try:
        assert within(PATIENCE, lambda: listens(ports.gateway)), "nginx does not start"
        yield Beside(f"http://127.0.0.1:{ports.gateway}", ports, workers_of_nginx(process.pid))
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(folder)


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def relocated(folder: Path) -> None:
    """The container's nginx.conf, with its paths under the folder."""
    text = (CONFIG / "nginx.container.conf").read_text()
    text = text.replace("/tmp/", f"{folder}/").replace("/var/cache/nginx/", f"{folder}/")
    text = text.replace("/etc/nginx/conf.d/*.conf", f"{folder}/gateway.conf")
    assert not re.search(rf" /(?!dev/stdout|{str(folder)[1:]}/)", text), "a path that is not in the folder"
    (folder / "nginx.conf").write_text(text)


def refused(answer: requests.Response, status: int, kind: str) -> str:
    """The message of a refusal that says when to come back."""
    error = answer.json()
    assert (answer.status_code, error["code"], error["type"]) == (status, status, kind)
    assert answer.headers["Retry-After"] == "1"
    return error["message"]


FULL = ("sh", "-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "sh")
"""No file may be larger than 512 kB or 1 MB: what a disk without room says to a write, without one that is full."""


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "chunked"])
def test_an_upload_without_room_on_disk_is_a_503_at_once_and_goes_no_further(stack, whole):
    body = b"x" * 4 * MIB
    with beside(stack, under=FULL) as full:
        url = full.url + "/predictions/echo"
        began = time.monotonic()
        answer = requests.post(url, data=body if whole else iter([body]), timeout=PATIENCE + 30)
        assert "no room" in refused(answer, 503, "Unavailable")
        assert time.monotonic() - began < 10
        small = requests.post(url, data=b"x" * 200_000, timeout=PATIENCE)
        assert small.json()["length"] == 200_000


def test_one_address_may_have_so_many_requests_open_and_others_do_not_care(stack):
    with beside(stack, CAMSERVE_CLIENT_REQUESTS="3") as strict:
        url = strict.url + "/predictions/echo"
        with ExitStack() as stalled:
            for _ in range(3):
                one = stalled.enter_context(socket.create_connection(("127.0.0.1", strict.ports.gateway)))
                one.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
            assert within(PATIENCE, lambda: requests.post(url, data=b"x", timeout=PATIENCE).status_code == 429)
            assert "3 unanswered" in refused(requests.post(url, data=b"x", timeout=PATIENCE), 429, "TooManyRequests")
            with requests.Session() as elsewhere:
                elsewhere.mount("http://", From("127.0.0.2"))
                assert elsewhere.post(url, data=b"x", timeout=PATIENCE).json()["length"] == 1
        assert within(PATIENCE, lambda: requests.post(url, data=b"x", timeout=PATIENCE).status_code == 200)


def test_behind_a_proxy_the_address_is_the_one_that_it_names(stack):
    with beside(stack, CAMSERVE_CLIENT_REQUESTS="1", CAMSERVE_CLIENT_ADDRESS="$http_x_forwarded_for") as proxied:

        def ask(address: str) -> requests.Response:
            headers = {"X-Forwarded-For": address}
            return requests.post(proxied.url + "/predictions/echo", data=b"x", headers=headers, timeout=PATIENCE)

        with socket.create_connection(("127.0.0.1", proxied.ports.gateway)) as stalled:
            stalled.sendall(HEAD + b"X-Forwarded-For: 192.0.2.1\r\nContent-Length: 1000\r\n\r\n")
            assert within(PATIENCE, lambda: ask("192.0.2.1").status_code == 429)
            assert ask("192.0.2.2").json()["length"] == 1


class From(requests.adapters.HTTPAdapter):
    """Asks from another of this machine's own addresses."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__()

    def init_poolmanager(self, *args, **more):
        super().init_poolmanager(*args, source_address=(self.address, 0), **more)


# TorchServe closes its connection after every 4xx


def test_bad_requests_cost_no_good_one_its_answer(stack, long):
    def alternately() -> Iterator[Ask]:
        for number in range(1000 if long else 300):
            yield good(1 + number)
            yield bad

    def is_refused(reply: Reply) -> None:
        assert (reply.status, json.loads(reply.body)["type"]) == (400, "Wished")

    bad = Ask("/predictions/echo", json.dumps({"wish": 1, "status": 400}).encode(), check=is_refused, kind="bad")
    traffic = Traffic(stack.url, alternately(), 8)
    with traffic:
        traffic.join()
    assert traffic.outcomes == {"200": len(traffic.seen) // 2, "400": len(traffic.seen) // 2}
    assert not [one.fault for one in traffic.seen if one.fault]
