"""Draws the pictures of the documentation again: `make pictures`. The inspector's is taken with Debian's chromium.

The two samples stand in one picture, so that a map has to choose: the cat above, the cup below.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from playwright.sync_api import expect, sync_playwright
from tqdm import tqdm

from camserve.archive import Recipe, build, opened
from camserve.cam.methods import METHODS
from camserve.model import embedded
from camserve.offline import explain
from camserve.stack import Ports, Stack

HERE = Path(__file__).parent / "pictures"
CONFIG = Path(__file__).parents[1] / "config"
SAMPLES = Path(__file__).parents[1] / "handler" / "camserve" / "page" / "samples"
BOTH = HERE / "cat-and-coffee.jpg"
CAT, TIGER_CAT, ESPRESSO = 285, 282, 967
MOST_FORWARDS = 1280
"""As many as the embedded model's last layer has channels."""

CONTRAST = {"classes": f"{CAT}", "contrast": f"{TIGER_CAT}", "polarity": "both", "opacity": "0.6"}
PICTURES: dict[str, tuple[Path, str, dict[str, str]]] = {
    "cat.jpg": (SAMPLES / "cat.jpg", f"{CAT}-overlay.jpg", {}),
    "cat-tiger.jpg": (SAMPLES / "cat.jpg", f"{TIGER_CAT}-overlay.jpg", {"classes": f"{TIGER_CAT}"}),
    "cat-contrast.jpg": (SAMPLES / "cat.jpg", f"{CAT}-overlay.jpg", CONTRAST),
    "crop-before.jpg": (BOTH, f"{ESPRESSO}-overlay.jpg", {}),
    "crop-after.jpg": (BOTH, f"{CAT}-overlay.jpg", {"crop": "0,0,448,224"}),
    "top-3.jpg": (BOTH, "sheet.jpg", {"classes": "top:3"}),
}
"""Name: the picture explained, which of the files written is kept, and the options."""


def of_methods() -> dict[str, tuple[Path, str, dict[str, str]]]:
    """One picture a method: both classes side by side, or the one map of a method that knows no class."""
    both = {"classes": f"{CAT},{ESPRESSO}"}
    return {
        f"method-{name}.jpg": (
            (BOTH, "sheet.jpg", {"method": name, **both})
            if method.discriminative
            else (BOTH, f"{ESPRESSO}-overlay.jpg", {"method": name, "max_side": "240"})
        )
        for name, method in METHODS.items()
    }


def compose() -> None:
    """The cat above the cup, each 448 x 224."""
    halves = [
        np.asarray(ImageOps.fit(Image.open(SAMPLES / name), (448, 224), centering=(0.5, y)))
        for name, y in (("cat.jpg", 0.35), ("coffee.jpg", 0.4))
    ]
    Image.fromarray(np.concatenate(halves)).save(BOTH, quality=90)


def photograph() -> None:
    """The inspector as a visitor sees it, with the classes a rocket is taken for."""
    with tempfile.TemporaryDirectory() as folder:
        archive = build(Recipe("classifier", embedded.ARCHITECTURE, server={"minWorkers": 1}), Path(folder) / "store")
        place = (archive.parent, "classifier", archive.name, Ports.free(), CONFIG, Path(folder) / "state")
        with Stack(*place, os.environ) as stack, sync_playwright() as playwright:
            stack.wait_ready()
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
            page.goto(f"{stack.url}/?sample=rocket&beside=657")
            expect(page.locator(".panel:visible .sentence")).to_have_count(2)
            expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")
            page.screenshot(path=HERE / "inspector.jpg", type="jpeg", quality=58)
            chromium.close()


def main() -> None:
    """Every picture that the documents show, but the plots of the evaluation."""
    photograph()
    compose()
    recipe = Recipe("classifier", embedded.ARCHITECTURE, settings={"max_forwards": MOST_FORWARDS})
    with opened(recipe) as pipeline, tempfile.TemporaryDirectory() as folder:
        for name, (picture, kept, options) in tqdm((PICTURES | of_methods()).items(), unit="picture"):
            for done in explain(pipeline, [picture], options, Path(folder)):
                if not done.good:
                    sys.exit(f"{name}: {done.line}")
            shutil.copy(Path(folder) / f"{picture.stem}-{kept}", HERE / name)


if __name__ == "__main__":
    main()
