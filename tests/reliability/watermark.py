"""Pictures that carry a number, and the number back out of predictions, maps and pictures of maps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from service import CONFIG, Stack, grid, pixels, serving
from watermark_network import BITS, CELL, ONE, SIDE, ZERO

from camserve.archive import Recipe, build
from camserve.settings import Preprocessing

NETWORK = Path(__file__).with_name("watermark_network.py")
ACROSS = SIDE // CELL
WHITE = np.full((SIDE, SIDE, 3), 255, np.uint8)
"""The picture that makes the network tell what is left behind in it."""

_SERVER = yaml.safe_load((CONFIG / "model-config.yaml").read_text())


def cells(number: int) -> np.ndarray:
    """Which cells a number lights, 8 x 8."""
    bits = [number >> bit & 1 for bit in range(BITS)]
    unused = ACROSS**2 - 2 * BITS
    return np.array([*bits, *(1 - bit for bit in bits), *[0] * unused]).reshape(ACROSS, ACROSS)


def drawn(number: int, cell: int = CELL) -> np.ndarray:
    """The picture of a number: lit cells are white, all others black."""
    lit = np.repeat(np.repeat(cells(number), cell, 0), cell, 1)
    return np.repeat(lit[:, :, None], 3, 2).astype(np.uint8) * 255


def encoded(array: np.ndarray, format: str = "PNG") -> bytes:
    """A file without loss."""
    buffer = io.BytesIO()
    how = {"lossless": True} if format == "WEBP" else {}
    Image.fromarray(array).save(buffer, format, **how)
    return buffer.getvalue()


def among(number: int, others: Sequence[int]) -> np.ndarray:
    """A number in the middle of a picture 3 x 3 as large, with eight others around it."""
    places = [*others[:4], number, *others[4:]]
    return np.concatenate([np.concatenate([drawn(n) for n in places[row : row + 3]], 1) for row in (0, 3, 6)])


MIDDLE = f"{SIDE},{SIDE},{SIDE},{SIDE}"
"""Where `among` puts its number, as the option `crop`."""


def weights(number: int, class_id: int) -> np.ndarray:
    """The exact map of a class, 8 x 8."""
    lit = cells(number).astype(np.float32)
    if class_id < BITS:
        lit[own_cell(number, class_id)] = ONE if number >> class_id & 1 else ZERO
    return lit


def own_cell(number: int, class_id: int) -> tuple[int, int]:
    """Row and column of the lit cell that a class's own bit has."""
    return divmod(class_id if number >> class_id & 1 else BITS + class_id, ACROSS)


def logits(number: int) -> dict[int, float]:
    """The exact logits, by class."""
    return {class_id: float(weights(number, class_id).sum()) for class_id in range(BITS + 4)}


def read(predictions: Sequence[Mapping[str, Any]]) -> int | None:
    """The number in predictions, or None where there is none."""
    found = {one["class_id"]: one["logit"] for one in predictions}
    number = sum(1 << bit for bit in range(BITS) if found[bit] < found[BITS] + (ONE + ZERO) / 2 - 1)
    return number if found == logits(number) else None


def read_lit(lit: np.ndarray) -> int | None:
    """The number that a map of lit cells shows, or None where it is no number's."""
    number = sum(1 << bit for bit in range(BITS) if lit.ravel()[bit])
    return number if np.array_equal(lit, cells(number)) else None


def read_map(entry: Mapping[str, Any]) -> int | None:
    """The number in the grid of an explained class, of cells or of pixels."""
    signed = grid(entry)
    if signed.shape != (ACROSS, ACROSS):
        signed = np.abs(signed).reshape(ACROSS, CELL, ACROSS, CELL).max((1, 3))
    return read_lit(signed > signed.max() / 20)


def read_shown(shown: np.ndarray) -> int | None:
    """The number in a picture of a map in shades from black: a heatmap, or an overlay that covers all."""
    grey = shown if shown.ndim == 2 else shown.max(2)
    return read_lit(grey[CELL // 2 :: CELL, CELL // 2 :: CELL] > grey.max() / 6)  # neighbours shine in


def read_picture(picture: Mapping[str, Any]) -> int | None:
    """The same, of a picture in an answer."""
    return read_shown(pixels(picture))


def served(folder: Path, workers: int, **environment: str) -> Stack:
    """The network behind the gateway."""
    server = {**_SERVER, "minWorkers": workers, "maxWorkers": workers}
    server.pop("camserve")
    (folder / "labels.txt").write_text("".join(f"bit {bit}\n" for bit in range(BITS + 4)))
    preprocessing = Preprocessing(resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
    recipe = Recipe(
        "watermark",
        f"{NETWORK}:Watermark",
        "none",
        folder / "labels.txt",
        preprocessing,
        server=server,
        # No tape: the network looks around in each forward.
        settings={"max_forwards": 2 * BITS, "explain_when": {"sample": 1.0}, "tape": False},
    )
    build(recipe, folder / "store")
    return serving(folder, "watermark", **environment)
