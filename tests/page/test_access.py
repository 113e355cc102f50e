"""For everyone: by keyboard alone, for screen readers, on every width; and pictures of it to look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import SAMPLES, file
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.live, pytest.mark.tool("chromium")]

SCREENSHOTS = Path(__file__).parent / "screenshots"
"""Written anew with every run, not kept in git."""

WIDTHS = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}


def walk_to(page: Page, selector: str, key: str = "Tab", most: int = 60) -> None:
    """Presses a key until the focus is there."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{key} does not lead to {selector}")


def test_the_whole_story_with_the_keyboard_alone(inspector):
    page = inspector.page
    walk_to(page, "#samples button:nth-child(1)")
    with inspector.answer():
        page.keyboard.press("Enter")
    walk_to(page, ".frame")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#spoken")).to_contain_text("Egyptian cat: 244, 150:")
    for part, value in {"x": "100", "y": "20", "width": "200", "height": "200"}.items():
        walk_to(page, f"#crop-{part}")
        page.keyboard.type(value)
    walk_to(page, "#crop-run")
    with inspector.answer():
        page.keyboard.press("Enter")
    expect(page.locator(".panel:visible .chance").nth(1)).to_contain_text("Part: ")
    walk_to(page, "#predictions button")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#predictions [aria-pressed=true]")).to_have_count(1)
    assert page.evaluate("document.activeElement.closest('#predictions') !== null"), "the focus stays on the class"
    walk_to(page, "#verify")
    with inspector.answer():
        page.keyboard.press("Space")
    expect(page.locator(".check-row")).to_have_count(3)
    walk_to(page, "#method")
    with inspector.answer():
        page.keyboard.press("ArrowUp")
    assert inspector.asked[-1]["method"] == "cam"
    walk_to(page, "#visit button")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#spoken")).to_contain_text("cat.jpg")
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"


def empty(inspector):
    pass


def compared(inspector):
    inspector.sample("cat")
    inspector.predictions.nth(1).click()
    with inspector.answer():
        inspector.page.get_by_label("Hide the evidence, predict again").check()
    expect(inspector.page.locator(".check-row")).to_have_count(3)


def cropped(inspector):
    inspector.sample("coffee")
    inspector.draw((150, 60), (380, 300), (600, 400))
    with inspector.answer():
        inspector.page.get_by_role("button", name="Run again on the box").click()


def sheet(inspector):
    files = [file(SAMPLES / f"{name}.jpg") for name in ("cat", "coffee", "rocket")]
    inspector.choose(*files, {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no"})
    expect(inspector.page.locator("#sheet .card canvas")).to_have_count(3)
    expect(inspector.page.locator("#stage")).to_have_attribute("aria-busy", "false")


def refused(inspector):
    with inspector.answer():
        inspector.choose({"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no"})
    inspector.page.locator("#crop-x").is_disabled()
    inspector.page.get_by_label("Another class").fill("unicorn")
    inspector.page.get_by_label("Another class").press("Enter")


STATES = [empty, compared, cropped, sheet, refused]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_axe_finds_no_violation(visitor, state, scheme):
    mine = visitor(color_scheme=scheme).open()
    state(mine)
    found = Axe().run(mine.page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_is_drawn_for_looking_at(visitor, width, scheme):
    mine = visitor(*WIDTHS[width], color_scheme=scheme, has_touch=width == "phone").open()
    mine.sample("rocket")
    SCREENSHOTS.mkdir(exist_ok=True)
    mine.page.screenshot(path=SCREENSHOTS / f"{width}-{scheme}-one.png", full_page=True)
    mine.predictions.nth(1).click()
    expect(mine.labels).to_have_count(2)
    mine.page.screenshot(path=SCREENSHOTS / f"{width}-{scheme}-two.png", full_page=True)
    assert mine.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    small = mine.page.evaluate(
        """() => [...document.querySelectorAll("button, select, input:not([type=file], [type=radio], [type=checkbox])")]
            .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 24)
            .map((one) => one.id || one.textContent)"""
    )
    assert small == []


@pytest.mark.parametrize("state", [empty, sheet, cropped], ids=lambda state: state.__name__)
def test_the_other_states_are_drawn_for_looking_at(visitor, state):
    mine = visitor(*WIDTHS["desktop"]).open()
    state(mine)
    SCREENSHOTS.mkdir(exist_ok=True)
    mine.page.screenshot(path=SCREENSHOTS / f"desktop-{state.__name__}.png", full_page=True)


def test_nothing_jumps_when_the_answer_comes(inspector):
    seen = ".board, #reading, .look, #crop, #predictions, #another, #trust, #controls"
    places = f"() => [...document.querySelectorAll('{seen}')].map((one) => one.getBoundingClientRect().top)"
    before = inspector.page.evaluate(places)
    inspector.sample("coffee")
    assert inspector.page.evaluate(places) == before
    inspector.predictions.nth(1).click()
    expect(inspector.labels).to_have_count(2)
    assert inspector.page.evaluate(places) == before


def test_the_colours_can_be_changed_and_that_is_not_kept(visitor):
    mine = visitor(color_scheme="dark").open()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = mine.page.evaluate(ground)
    mine.page.get_by_role("button", name="Light colours").click()
    assert mine.page.evaluate(ground) != dark
    mine.page.reload()
    assert mine.page.evaluate(ground) == dark


def test_who_wants_no_motion_gets_none(visitor):
    mine = visitor(reduced_motion="reduce").open()
    moving = "getComputedStyle(document.querySelector('#busy'), '::after').animationName"
    mine.page.evaluate("document.querySelector('#busy').classList.add('on')")
    assert mine.page.evaluate(moving) == "none"
