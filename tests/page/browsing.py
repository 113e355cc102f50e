"""The inspector as a person finds it: what can be done on the page, and what was sent because of it."""

from __future__ import annotations

import base64
import json
import mimetypes
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import Download, Locator, Page, Request, Route, expect

SAMPLES = Path(__file__).parents[2] / "handler" / "camserve" / "page" / "samples"


class Inspector:
    """The page in a browser: what a person does there, and what was sent because of it."""

    def __init__(self, page: Page, home: str) -> None:
        self.page = page
        self.home = home
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.sentence = page.locator(".panel:visible .sentence").first
        self.labels = page.locator(".panel:visible .label")
        self.predictions = page.locator("#predictions button")
        page.on("request", lambda request: self.requests.append(request))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda said: self._hear(said.text))

    def _hear(self, text: str) -> None:
        if "Content Security Policy" in text or "Refused to" in text:
            self.faults.append(text)

    def open(self, path: str = "/") -> Inspector:
        """Goes to a path of the gateway (or a whole URL) and waits until the model is described."""
        self.page.goto(path if path.startswith("http") else self.home + path)
        expect(self.page.locator("#method option").first).to_be_attached()
        return self

    @property
    def asked(self) -> list[dict[str, str]]:
        """The options of all predictions that were asked for, in order."""
        return [dict(parse_qsl(urlsplit(one.url).query)) for one in self.requests if one.method == "POST"]

    def sample(self, name: str) -> None:
        """Picks a sample and waits for its answer."""
        with self.answer():
            self.page.get_by_role("button", name=f"Sample: {name}").click()
        expect(self.sentence).not_to_be_empty()

    def answer(self):
        """Waits for the answer to what the block does, and until the page has shown it."""
        return _Answered(self.page)

    def choose(self, *files: dict[str, Any] | Path) -> None:
        """Files chosen in the dialog."""
        self.page.locator("#files").set_input_files(list(files))

    def drop(self, *files: dict[str, Any]) -> None:
        """Files let fall onto the page."""
        self._hand_over("drop", "dataTransfer", files)

    def paste(self, *files: dict[str, Any]) -> None:
        """Files in the clipboard, and Ctrl-V."""
        self._hand_over("paste", "clipboardData", files)

    def _hand_over(self, event: str, carrier: str, files: tuple[dict[str, Any], ...]) -> None:
        parts = [
            {"name": one["name"], "type": one["mimeType"], "data": base64.b64encode(one["buffer"]).decode()}
            for one in files
        ]
        self.page.evaluate(
            """([event, carrier, parts]) => {
                const transfer = new DataTransfer();
                for (const { name, type, data } of parts) {
                    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                    transfer.items.add(new File([bytes], name, { type }));
                }
                const happening = new Event(event, { bubbles: true, cancelable: true });
                Object.defineProperty(happening, carrier, { value: transfer });
                document.body.dispatchEvent(happening);
            }""",
            [event, carrier, parts],
        )

    def frame(self, index: int = 0) -> Locator:
        """The picture in a panel."""
        return self.page.locator(".frame:visible").nth(index)

    def at(self, x: float, y: float, size: tuple[int, int], index: int = 0) -> tuple[float, float]:
        """Where a point of the picture lies in the window."""
        box = self.frame(index).bounding_box()
        assert box
        scale = min(box["width"] / size[0], box["height"] / size[1])
        left = box["x"] + (box["width"] - size[0] * scale) / 2
        top = box["y"] + (box["height"] - size[1] * scale) / 2
        return left + x * scale, top + y * scale

    def draw(self, start: tuple[float, float], end: tuple[float, float], size: tuple[int, int]) -> None:
        """A box drawn with the mouse, from corner to corner."""
        self.page.mouse.move(*self.at(*start, size))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end, size), steps=4)
        self.page.mouse.up()

    def seen(self, index: int = 0) -> str:
        """What is on a panel's canvas, to be compared."""
        return self.frame(index).locator("canvas").evaluate("canvas => canvas.toDataURL()")

    def saved(self, button: str) -> tuple[str, bytes]:
        """Name and content of the file that a button saves."""
        with self.page.expect_download() as caught:
            self.page.get_by_role("button", name=button, exact=True).click()
        download: Download = caught.value
        return download.suggested_filename, Path(download.path()).read_bytes()

    def patch(self, change) -> None:
        """Has every prediction's answer changed by `change(answer)` on its way to the page."""

        def answered(route: Route) -> None:
            if route.request.method != "POST":
                return route.fallback()
            answer = route.fetch()
            body = answer.json()
            change(body)
            return route.fulfill(response=answer, body=json.dumps(body))

        self.page.route("**/predictions/**", answered)


class _Answered:
    """Waits at the end of the block for the answer of a prediction, and until it is shown."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.waiting = page.expect_response(lambda answer: answer.request.method == "POST")

    def __enter__(self):
        return self.waiting.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.waiting.__exit__(*error)
        expect(self.page.locator("#stage")).to_have_attribute("aria-busy", "false")


def file(path: Path, name: str | None = None) -> dict[str, Any]:
    """A file as a browser hands it over."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    return {"name": name or path.name, "mimeType": kind, "buffer": path.read_bytes()}
