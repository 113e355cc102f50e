"""When something is wrong: broken files, hostile names, a server that is away; and the page without the gateway."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
from browsing import SAMPLES, file
from playwright.sync_api import expect
from service import CAT

from camserve.stack.processes import _quit

pytestmark = [pytest.mark.live, pytest.mark.tool("chromium")]

HOSTILE = "<script>window.harm = 1</script><img src=x onerror='window.harm = 2'>"


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"name": "cut.jpg", "mimeType": "image/jpeg", "buffer": CAT[:9000]}, "broken or cut short"),
        ({"name": "text.jpg", "mimeType": "image/jpeg", "buffer": b"just text"}, "Expected a picture in one of"),
        ({"name": "empty.png", "mimeType": "image/png", "buffer": b""}, "No picture"),
        ({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"}, r"notes\.txt is no picture: .* text/plain"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_a_file_that_cannot_be_used_is_said_beside_the_button_that_chose_it(inspector, one, words):
    note = inspector.page.locator("#picture-note")
    inspector.choose(one)
    expect(note).to_have_text(re.compile(words))
    expect(note).to_have_attribute("role", "alert")
    inspector.sample("cat")
    expect(note).to_be_empty()
    expect(inspector.labels).to_have_text(["Egyptian cat"])


def test_a_file_over_the_gateways_limit_is_said_before_it_is_sent(inspector):
    inspector.page.evaluate(
        """() => {
            const happening = new Event("drop", { bubbles: true, cancelable: true });
            const files = [new File([new Uint8Array(21 * 2 ** 20)], "big.bmp", { type: "image/bmp" })];
            Object.defineProperty(happening, "dataTransfer", { value: { files } });
            document.body.dispatchEvent(happening);
        }"""
    )
    words = "The file has 21.0 MB and this server takes 20 MB: send a smaller picture."
    expect(inspector.page.locator("#picture-note")).to_have_text(words)
    assert inspector.asked == []


def test_an_option_that_is_refused_is_said_beside_its_control(visitor):
    mine = visitor().open("/?sample=cat&layer=nowhere")
    expect(mine.page.locator("#layer-note")).to_have_text(re.compile("'nowhere' is no layer that can be explained"))
    with mine.answer():
        mine.page.locator("#layer").select_option("blocks.6")
    expect(mine.page.locator("#layer-note")).to_be_empty()


def test_names_are_text_whatever_they_contain(inspector):
    def rename(answer):
        if "predictions" not in answer:
            return
        answer["predictions"][0]["label"] = HOSTILE
        answer["explanation"]["classes"][0]["label"] = HOSTILE

    inspector.patch(rename)
    with inspector.answer():
        inspector.choose({"name": f"{HOSTILE}.jpg", "mimeType": "image/jpeg", "buffer": CAT})
    expect(inspector.labels).to_have_text([HOSTILE])
    expect(inspector.predictions.first.locator(".name")).to_have_text(HOSTILE)
    expect(inspector.page.locator("#curl")).to_have_value(re.compile(re.escape(HOSTILE[:8])))
    inspector.drop(*[{"name": f"{HOSTILE}.jpg", "mimeType": "image/jpeg", "buffer": b"x"}] * 2)
    expect(inspector.page.locator("#sheet .name").first).to_have_text(f"{HOSTILE}.jpg")
    expect(inspector.page.locator("#stage")).to_have_attribute("aria-busy", "false")
    assert inspector.page.evaluate("window.harm") is None
    assert inspector.page.locator("img[src=x]").count() == 0


@contextmanager
def without_gateway(service):
    """The gateway stops, and is there again afterwards, at the same port."""
    stack = service.stack
    child = stack._children["gateway"]
    child.end(_quit, 10)
    try:
        yield
    finally:
        child.start()


def test_a_server_that_goes_away_is_waited_for(inspector, service):
    page = inspector.page
    inspector.sample("cat")
    with without_gateway(service):
        page.locator("#method").select_option("layercam")
        expect(page.get_by_text("The server cannot be reached. Trying again")).to_be_visible()
        expect(inspector.labels).to_have_text(["Egyptian cat"])
    expect(page.locator("#away")).to_be_hidden()
    expect(page.locator(".panel:visible .what")).to_have_text("LayerCAM")


def test_a_page_that_was_opened_while_the_model_was_away_comes_to_life(visitor):
    mine = visitor()
    away = {"code": 503, "type": "Unavailable", "message": "No worker could answer."}
    mine.page.route("**/predictions/classifier", lambda route: route.fulfill(status=503, json=away))
    mine.page.goto(mine.home)
    expect(mine.page.get_by_text("No worker could answer. Trying again")).to_be_visible()
    mine.page.unroute_all()
    expect(mine.page.locator("#model")).to_have_text(re.compile("^classifier 1.0"))
    expect(mine.page.locator("#away")).to_be_hidden()


def test_a_picture_that_the_server_cannot_stand_is_given_up(inspector):
    away = {"code": 503, "type": "Unavailable", "message": "No worker could answer."}
    inspector.page.route("**/predictions/classifier?*", lambda route: route.fulfill(status=503, json=away))
    inspector.choose(file(SAMPLES / "cat.jpg"))
    expect(inspector.page.locator("#picture-note")).to_have_text("No worker could answer.")
    assert len(inspector.asked) == 3
    expect(inspector.page.locator("#away")).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "words"),
    [("nobody", "Model not found"), ("../ping", "The address names no model")],
    ids=["unknown", "bad"],
)
def test_a_model_that_is_not_there_is_said(visitor, name, words):
    mine = visitor()
    mine.page.goto(f"{mine.home}/?model={name}")
    expect(mine.page.locator("#picture-note")).to_have_text(re.compile(words))


def test_another_model_can_be_named_in_the_address(visitor):
    mine = visitor().open("/?model=classifier&sample=cat")
    expect(mine.labels).to_have_text(["Egyptian cat"])
    assert "model=classifier" in mine.page.url


# The model's own address


def test_the_models_own_address_is_the_page(visitor):
    mine = visitor().open("/predictions/classifier?method=layercam")
    mine.sample("cat")
    expect(mine.page.locator(".panel:visible .what")).to_have_text("LayerCAM")
    assert mine.page.url.startswith(f"{mine.home}/predictions/classifier?method=layercam")
    versioned = visitor().open("/predictions/classifier/1.0?sample=cat")
    expect(versioned.labels).to_have_text(["Egyptian cat"])
    expect(versioned.page.locator("#curl")).to_have_value(re.compile("/predictions/classifier/1.0[?]"))


def test_it_works_without_the_gateway_too(visitor, service):
    mine = visitor().open(f"{service.native}/predictions/classifier?method=layercam")
    expect(mine.page.locator("#samples button")).to_have_count(0)
    with mine.answer():
        mine.choose(file(SAMPLES / "cat.jpg"))
    expect(mine.page.locator(".panel:visible .what")).to_have_text("LayerCAM")
    with mine.answer():
        mine.page.locator("#contrast").select_option("runner_up")
    expect(mine.sentence).to_have_text(re.compile("of what favours it over “tiger cat”"))
