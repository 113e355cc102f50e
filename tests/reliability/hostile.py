"""What has to hold for the parts of the path that need no network: options, requests, pixels, and a quiet log."""

from __future__ import annotations

import ctypes
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from PIL import Image

from camserve import options, request
from camserve.errors import InvalidOption, MissingImage, RequestError, TooLarge, Undecodable, UnsupportedFormat
from camserve.imaging.decode import SizeLimits, decode, inspect
from camserve.imaging.guard import be_quiet
from camserve.records import Row

LIMITS = SizeLimits(pixels=50_000_000, side=16_384, aspect_ratio=20.0)
_INSTANCES = 8
_OF_A_PICTURE = (MissingImage, TooLarge, UnsupportedFormat, Undecodable)


def parsed_options(values: Mapping[str, Any]) -> Counter[str]:
    """Options are checked, or refused as such."""
    try:
        checked = options.parse(values)
    except InvalidOption as fault:
        return _told(fault)
    orjson.dumps(checked.model_dump(mode="json"))
    return Counter(["good"])


def read_row(row: Row) -> Counter[str]:
    """A row is read, or it or its instances are refused with 400."""
    try:
        call = request.read(row, _INSTANCES)
    except RequestError as fault:
        return _told(fault)
    assert len(call.asks) <= _INSTANCES
    outcomes: Counter[str] = Counter([call.kind] if not call.asks else [])
    for ask in call.asks:
        outcomes += _told(ask) if isinstance(ask, RequestError) else Counter(["good"])
    return outcomes


def decoded(image: bytes) -> Counter[str]:
    """A picture becomes RGB inside the limits, or is refused as one."""
    try:
        with listening():
            picture = decode(inspect(image, LIMITS))
    except _OF_A_PICTURE as fault:
        return _told(fault, (400, 413, 415, 422))
    assert picture.source.mode == "RGB"
    assert 1 <= picture.width * picture.height <= LIMITS.pixels
    assert max(picture.width, picture.height) <= LIMITS.side
    Image.Image.getpixel(picture.source, (picture.width - 1, picture.height - 1))
    return Counter(["good"])


def _told(fault: RequestError, statuses: tuple[int, ...] = (400,)) -> Counter[str]:
    """An error is one short printable sentence that travels as JSON."""
    message = str(fault)
    assert fault.status in statuses, repr(fault)
    assert 0 < len(message) < 1_000
    assert message.isascii()
    assert message.isprintable()
    orjson.dumps(message)
    return Counter([f"{fault.status} {fault.type}"])


# --- a quiet log ---------------------------------------------------------------------------------------------


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def listening() -> Iterator[None]:
    """Nothing in the block may warn or log; a worker of TorchServe shows every line from INFO on."""
    heard, root = _Heard(), logging.getLogger()
    level = root.level
    root.addHandler(heard)
    root.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            be_quiet()
            yield
    finally:
        root.removeHandler(heard)
        root.setLevel(level)
        assert not heard.lines, heard.lines[0][-3000:]


# --- memory -------------------------------------------------------------------------------------------------


class Peak:
    """How far resident memory of this process grew, in bytes."""

    grown = 0


@contextmanager
def peak() -> Iterator[Peak]:
    """Measures the block: what is free goes back to the kernel, and its high-water mark is put back, before it."""
    found = Peak()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    yield found
    found.grown = memory("VmHWM") - before


def memory(name: str) -> int:
    """Bytes, as the kernel counts them for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
