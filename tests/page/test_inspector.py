"""The story of the page in a real browser, from a picture to a comparison and what is taken away."""

from __future__ import annotations

import io
import re
import subprocess

import numpy as np
import pytest
from browsing import SAMPLES, file
from PIL import Image
from playwright.sync_api import expect
from service import CAT, EGYPTIAN_CAT, TIGER_CAT, grid, pixels

pytestmark = [pytest.mark.live, pytest.mark.tool("chromium")]

CAT_FILE = file(SAMPLES / "cat.jpg")
COFFEE_FILE = file(SAMPLES / "coffee.jpg")
CAT_SIZE = (451, 300)


def encoded(picture: Image.Image, kind: str, **how) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return out.getvalue()


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{round(100 * share)} %"


# A picture comes in


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_that_comes_in_is_explained(inspector, service, way):
    with inspector.answer():
        getattr(inspector, way)(CAT_FILE)
    truth = service.ask("?explain=true&maps=regions").json
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    (region,) = truth["explanation"]["classes"][0]["regions"]
    expect(inspector.sentence).to_have_text(f"{percent(region['share'])} of the evidence lies in this box.")
    expect(inspector.predictions).to_have_count(5)
    for row, one in zip(inspector.predictions.all(), truth["predictions"], strict=True):
        expect(row.locator(".name")).to_have_text(one["label"])
        expect(row.locator(".chance")).to_have_text(percent(one["probability"]))
    expect(inspector.page.locator("#trust li")).to_have_text([re.compile("two likeliest classes are close")])
    expect(inspector.page.locator("#ledger")).to_have_text(re.compile("^It adds up: evidence 9.32 .* logit 9.34"))
    expect(inspector.page.locator("#timing dt")).to_have_count(9)


def test_a_photo_is_taken_with_the_camera_behind(visitor):
    phone = visitor(390, 844, has_touch=True, is_mobile=True).open()
    expect(phone.page.get_by_role("button", name="Take a photo")).to_be_visible()
    assert phone.page.locator("#camera").get_attribute("capture") == "environment"
    with phone.page.expect_file_chooser() as chooser, phone.answer():
        phone.page.get_by_role("button", name="Take a photo").click()
        chooser.value.set_files(CAT_FILE)
    expect(phone.labels).to_have_text(["Egyptian cat"])


@pytest.mark.parametrize(("name", "label"), [("cat", "Egyptian cat"), ("coffee", "espresso"), ("rocket", None)])
def test_a_sample_is_one_click(inspector, name, label):
    inspector.sample(name)
    if label:
        expect(inspector.labels).to_have_text([label])
    assert f"sample={name}" in inspector.page.url


def test_a_picture_stored_sideways_is_shown_upright(inspector):
    turned = Image.open(SAMPLES / "cat.jpg").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    with inspector.answer():
        inspector.choose(
            {"name": "turned.jpg", "mimeType": "image/jpeg", "buffer": encoded(turned, "JPEG", exif=exif, quality=95)}
        )
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    _, overlay = inspector.saved("Overlay")
    assert Image.open(io.BytesIO(overlay)).size == CAT_SIZE


def test_a_format_that_browsers_do_not_read_is_shown_as_the_server_reads_it(inspector):
    data = encoded(Image.open(SAMPLES / "cat.jpg"), "TIFF")
    with inspector.answer():
        inspector.choose({"name": "cat.tiff", "mimeType": "image/tiff", "buffer": data})
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    inspector.page.get_by_label("Boxes").uncheck()
    inspector.page.locator("#opacity").fill("0")
    shown = np.asarray(Image.open(io.BytesIO(inspector.saved("Overlay")[1])).convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(Image.open(SAMPLES / "cat.jpg")).astype(int)).mean() < 5


# The map


@pytest.mark.parametrize(
    ("query", "colormap"),
    [
        ("", "jet"),
        ("", "magma"),
        ("&polarity=negative&method=layercam&contrast=runner_up", "viridis"),
        ("&polarity=both&contrast=runner_up", "jet"),
        ("&method=saliency", "inferno"),
    ],
)
def test_the_map_is_coloured_as_the_service_colours_it(visitor, service, query, colormap):
    mine = visitor().open(f"/?opacity=0.4&boxes=false&colormap={colormap}{query}")
    with mine.answer():
        mine.choose(CAT_FILE)
    _, saved = mine.saved("Overlay")
    theirs = service.ask(f"?explain=true&image_format=png&colormap={colormap}{query}").explained["overlay"]
    ours = np.asarray(Image.open(io.BytesIO(saved)).convert("RGB")).astype(int)
    # Browsers and Pillow read JPEG a little differently.
    assert np.abs(ours - pixels(theirs).astype(int)).mean() < 2.5
    plain = np.asarray(Image.open(io.BytesIO(CAT)).convert("RGB")).astype(int)
    assert np.abs(ours - plain).mean() > 5


def test_another_class_stands_beside_the_first_without_another_request(inspector):
    inspector.sample("cat")
    before = len(inspector.asked)
    inspector.predictions.filter(has_text="tiger cat").click()
    expect(inspector.labels).to_have_text(["Egyptian cat", "tiger cat"])
    assert inspector.seen(0) != inspector.seen(1)
    expect(inspector.page.locator('#predictions [aria-pressed="true"]')).to_have_count(2)
    assert f"beside={TIGER_CAT}" in inspector.page.url
    inspector.predictions.filter(has_text="tiger cat").click()
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    assert len(inspector.asked) == before


def test_a_class_that_was_not_predicted_is_asked_for(inspector, service):
    inspector.sample("cat")
    with inspector.answer():
        inspector.page.get_by_label("Another class").fill("espresso")
        inspector.page.get_by_label("Another class").press("Enter")
    expect(inspector.labels).to_have_text(["Egyptian cat", "espresso"])
    assert inspector.asked[-1]["classes"] == "967"
    inspector.page.get_by_label("Another class").fill("unicorn")
    inspector.page.get_by_label("Another class").press("Enter")
    expect(inspector.page.locator("#classes-note")).to_have_text("The model has no class “unicorn”.")


@pytest.mark.parametrize(
    ("control", "value", "option"),
    [
        ("#method", "layercam", {"method": "layercam"}),
        ("#layer", "blocks.6", {"layer": "blocks.6"}),
        ("#contrast", "runner_up", {"contrast": "runner_up"}),
    ],
)
def test_a_choice_is_asked_for(inspector, control, value, option):
    inspector.sample("cat")
    before = inspector.seen()
    with inspector.answer():
        inspector.page.locator(control).select_option(value)
    assert option.items() <= inspector.asked[-1].items()
    assert inspector.seen() != before
    expect(inspector.page.locator(".card")).to_have_count(2)


def test_what_speaks_against_and_both_have_their_own_words_and_legend(inspector):
    inspector.sample("cat")
    plain = inspector.page.locator("#legend").evaluate("canvas => canvas.toDataURL()")
    with inspector.answer():
        inspector.page.get_by_label("against", exact=True).check()
    assert inspector.asked[-1]["polarity"] == "negative"
    expect(inspector.sentence).to_have_text("Nothing in the picture speaks against it: the plain picture is shown.")
    with inspector.answer():
        inspector.page.get_by_label("both", exact=True).check()
    expect(inspector.sentence).to_have_text(re.compile("of what speaks for it lies in this box"))
    expect(inspector.page.locator(".ends span")).to_have_text(["against", "0", "for"])
    expect(inspector.page.locator("#colormap")).to_be_disabled()
    assert inspector.page.locator("#legend").evaluate("canvas => canvas.toDataURL()") != plain


def test_rather_than_says_which_class(inspector):
    inspector.sample("cat")
    with inspector.answer():
        inspector.page.locator("#contrast").select_option(label="tiger cat")
    expect(inspector.sentence).to_have_text(re.compile(r"of what favours it over “tiger cat” lies in this box\.$"))
    inspector.predictions.filter(has_text="tiger cat").click()
    expect(inspector.page.locator(".panel:visible .sentence").nth(1)).to_have_text(re.compile("^There is no map: "))


def test_how_it_looks_needs_no_request(inspector):
    inspector.sample("cat")
    seen, asked = [inspector.seen()], len(inspector.asked)
    inspector.page.locator("#opacity").fill("0.9")
    expect(inspector.page.locator("#opacity-value")).to_have_text("90 %")
    seen.append(inspector.seen())
    inspector.page.locator("#colormap").select_option("jet")
    seen.append(inspector.seen())
    inspector.page.get_by_label("Boxes").uncheck()
    seen.append(inspector.seen())
    assert len(set(seen)) == 4
    assert len(inspector.asked) == asked


def test_what_a_method_cannot_do_is_switched_off_and_says_why(inspector):
    page = inspector.page
    score = page.locator("#method option[value=scorecam]")
    expect(score).to_be_disabled()
    expect(score).to_have_text("Score-CAM: needs 1280 forward passes, this server allows 0")
    expect(page.locator("#method option[value=guided_backprop]")).to_be_enabled()
    inspector.sample("cat")
    with inspector.answer():
        page.locator("#method").select_option("eigencam")
    assert not {"classes", "polarity", "contrast"} & set(inspector.asked[-1])
    for name in ("polarity", "contrast"):
        expect(page.locator(f"select#{name}, #{name} input").first).to_be_disabled()
        expect(page.locator(f"#{name}-note")).to_have_text(re.compile("has no choice here"))
    expect(page.locator("#trust li").first).to_have_text(re.compile("looks at no class"))
    inspector.predictions.nth(1).click()
    expect(page.locator("#classes-note")).to_have_text(re.compile("looks at no class: its map is the same for all"))


def test_the_evidence_at_a_point_is_the_grids(inspector, service):
    inspector.sample("cat")
    answer = service.ask("?explain=true&maps=grid").json
    values = grid(answer["explanation"]["classes"][0])
    x0, y0, x1, y1 = answer["image"]["model_box"]
    row, column = np.unravel_index(values.argmax(), values.shape)
    centre = (x0 + (column + 0.5) * (x1 - x0) / 7, y0 + (row + 0.5) * (y1 - y0) / 7)
    inspector.page.mouse.move(*inspector.at(*centre, CAT_SIZE))
    reading = inspector.page.locator("#reading")
    expect(reading).to_have_text(re.compile(r"Egyptian cat: \d+, \d+: [\d.]+ for it, \d+ % of the peak"))
    found = float(re.search(r": ([\d.]+) for it", reading.text_content())[1])
    assert found == pytest.approx(values.max(), rel=0.03)  # the mouse stands on whole pixels
    inspector.page.mouse.move(*inspector.at(20.7, 150.5, CAT_SIZE))
    expect(reading).to_have_text(
        re.compile(r"^Egyptian cat: (19|20|21), (149|150|151): the network did not see this part$")
    )
    inspector.page.mouse.move(5, 5)
    expect(reading).to_have_text(re.compile("^Point at the picture"))


# A part of the picture


def test_a_drawn_box_is_run_again_beside_the_whole(inspector, service):
    inspector.sample("coffee")
    whole = inspector.labels.all_text_contents()
    inspector.draw((10, 20), (150, 180), (600, 400))
    values = [int(inspector.page.locator(f"#crop-{part}").input_value()) for part in ("x", "y", "width", "height")]
    assert values == pytest.approx([10, 20, 140, 160], abs=3)
    with inspector.answer():
        inspector.page.get_by_role("button", name="Run again on the box").click()
    text = ",".join(map(str, values))
    assert inspector.asked[-1]["crop"] == text
    part = service.ask(f"?crop={text}", (SAMPLES / "coffee.jpg").read_bytes()).json["predictions"][0]
    expect(inspector.labels).to_have_text([*whole, part["label"]])
    expect(inspector.page.locator(".panel:visible .chance")).to_have_text(
        [re.compile("^Whole: "), re.compile("^Part: ")]
    )
    expect(inspector.predictions.first.locator(".chance")).to_have_text(
        re.compile(f"→ {percent(part['probability'])}$")
    )
    with inspector.answer():
        inspector.page.get_by_role("button", name="Whole picture").click()
    expect(inspector.labels).to_have_text(whole)
    assert "crop" not in inspector.asked[-1]


def test_other_settings_for_a_part_are_compared_with_the_same_settings_for_the_whole(inspector):
    inspector.sample("cat")
    for part, value in {"x": 100, "y": 20, "width": 200, "height": 200}.items():
        inspector.page.locator(f"#crop-{part}").fill(str(value))
    with inspector.answer():
        inspector.page.get_by_role("button", name="Run again on the box").click()
    inspector.page.locator("#method").select_option("layercam")
    expect(inspector.page.locator(".panel:visible .what")).to_have_text(["LayerCAM", "LayerCAM, a part"])
    assert [one.get("crop") for one in inspector.asked[-2:]] == [None, "100,20,200,200"]


def test_a_box_that_does_not_fit_is_said_beside_it(inspector):
    inspector.sample("cat")
    for part, value in {"x": 400, "y": 0, "width": 100, "height": 100}.items():
        inspector.page.locator(f"#crop-{part}").fill(str(value))
    expect(inspector.page.locator("#crop-note")).to_have_text(re.compile("inside the picture, 451 x 300"))
    expect(inspector.page.get_by_role("button", name="Run again on the box")).to_be_disabled()


# Trust


def test_verification_shows_the_drop_and_its_control(inspector, service):
    inspector.sample("coffee")
    with inspector.answer():
        inspector.page.get_by_label("Hide the evidence, predict again").check()
    truth = service.ask("?explain=true&verify=true", (SAMPLES / "coffee.jpg").read_bytes()).explained["verify"]
    shares = [truth["probability"], truth["without_top"], float(np.mean(truth["without_random"]))]
    rows = inspector.page.locator(".check-row span:nth-child(2)")
    expect(rows).to_have_text([percent(share) for share in shares])
    expect(inspector.page.locator("#verified p").first).to_have_text(re.compile("The map found|do not rely"))


STATUSES = {
    "shed": (lambda one: {"status": "shed"}, "The server is busy and left the maps out"),
    "not needed": (lambda one: {"status": "not_needed"}, "own rule did not ask for an explanation"),
    "failed": (
        lambda one: {**one, "status": "failed", "classes": [{**failed(one), "reason": "The hook broke."}]},
        "There is no map: The hook broke.",
    ),
    "empty map": (
        lambda one: {**one, "classes": [{**one["classes"][0], "status": "empty_map", "regions": []}]},
        "Nothing in the picture speaks for it",
    ),
}


def failed(explanation):
    return {name: explanation["classes"][0][name] for name in ("class_id", "label", "polarity", "contrast")} | {
        "status": "failed"
    }


@pytest.mark.parametrize("status", STATUSES)
def test_an_answer_without_a_map_says_so_in_words(inspector, status):
    change, words = STATUSES[status]
    inspector.patch(lambda answer: answer.update(explanation=change(answer["explanation"])))
    inspector.sample("cat")
    expect(inspector.sentence).to_have_text(re.compile(re.escape(words)))
    expect(inspector.predictions).to_have_count(5)
    expect(inspector.labels).to_have_text(["Egyptian cat"])


# What is taken away


def test_grid_and_answer_are_saved_as_they_came(inspector, service):
    inspector.sample("cat")
    name, content = inspector.saved("Grid")
    truth = service.ask("?explain=true&maps=grid").explained
    assert name == f"cat-{EGYPTIAN_CAT}-grid.npy"
    assert np.load(io.BytesIO(content)) == pytest.approx(grid(truth), rel=1e-5)
    name, content = inspector.saved("JSON")
    assert name == "cat.json"
    assert b'"Egyptian cat"' in content


@pytest.mark.tool("curl")
def test_the_request_as_curl_gives_the_same_answer(visitor, tmp_path):
    mine = visitor(permissions=["clipboard-read", "clipboard-write"]).open("/?method=layercam&contrast=runner_up")
    name = "it's a [cat] $HOME.jpg"
    with mine.answer():
        mine.choose({**CAT_FILE, "name": name})
    mine.page.get_by_role("button", name="Copy as curl").click()
    expect(mine.page.get_by_role("button", name="Copied")).to_be_visible()
    command = mine.page.evaluate("navigator.clipboard.readText()")
    (tmp_path / name).write_bytes(CAT)
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    assert b'"method":"layercam"' in done.stdout
    assert b'"label":"Egyptian cat"' in done.stdout


# Views and visits


def test_a_view_can_be_shared_by_its_address(visitor):
    mine = visitor().open("/?sample=cat&method=layercam&polarity=both&opacity=0.8&beside=281&crop=50,0,300,300")
    expect(mine.labels).to_have_text(["tabby", "tabby"])
    mine.sample("coffee")
    assert "crop" not in mine.page.url
    with mine.answer():
        mine.page.locator("#layer").select_option("blocks.6")
    mine.predictions.nth(2).click()
    expect(mine.labels).to_have_count(2)
    other = visitor().open(mine.page.url)
    expect(other.labels).to_have_text(mine.labels.all_text_contents())
    expect(other.sentence).to_have_text(mine.sentence.text_content())
    assert other.asked[-1]["layer"] == "blocks.6"


def test_the_visit_is_walked_through_with_arrow_keys(inspector):
    page = inspector.page
    for name in ("cat", "coffee", "rocket"):
        inspector.sample(name)
    expect(page.locator("#visit .card")).to_have_count(3)
    asked = len(inspector.asked)
    page.keyboard.press("ArrowLeft")
    expect(inspector.labels).to_have_text(["espresso"])
    expect(page.locator("#spoken")).to_have_text(re.compile(r"^2 of 3: coffee\.jpg: espresso"))
    page.keyboard.press("ArrowLeft")
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(inspector.labels).to_have_text(["espresso"])
    expect(page.locator('.card[aria-current="true"]')).to_contain_text("espresso")
    assert len(inspector.asked) == asked


def test_several_pictures_give_a_contact_sheet(inspector):
    page = inspector.page
    inspector.drop(CAT_FILE, {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": CAT[:4000]}, COFFEE_FILE)
    cards = page.locator("#sheet .card")
    expect(cards).to_have_count(3)
    expect(cards.nth(0)).to_contain_text("Egyptian cat")
    expect(cards.nth(1)).to_have_text(re.compile(r"broken\.jpg.*broken or cut short"))
    expect(cards.nth(2)).to_contain_text("espresso")
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")
    cards.nth(2).click()
    expect(inspector.labels).to_have_text(["espresso"])
    page.get_by_role("button", name="Contact sheet").click()
    expect(cards.nth(0)).to_be_visible()
    assert len(inspector.asked) == 3


def test_a_contact_sheet_takes_the_place_of_the_picture_before(inspector):
    page = inspector.page
    inspector.choose(CAT_FILE)
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    inspector.drop(COFFEE_FILE, COFFEE_FILE)
    cards = page.locator("#sheet .card")
    expect(cards.nth(1)).to_contain_text("espresso")
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#crop-x")).to_be_disabled()
    asked = len(inspector.asked)
    page.locator("#method").select_option("layercam")
    expect(cards.nth(0)).to_be_visible()
    page.wait_for_timeout(500)
    assert len(inspector.asked) == asked, "nobody asked about the cat again"


def test_what_a_contact_sheet_did_not_come_to_says_so(inspector):
    page = inspector.page
    inspector.drop(*[COFFEE_FILE] * 12)
    with inspector.answer():
        page.get_by_role("button", name="Sample: rocket").click()
    expect(inspector.sentence).not_to_be_empty()
    page.get_by_role("button", name="Contact sheet").click()
    expect(page.locator("#sheet .card").last).to_contain_text("not explained: something else was asked")
    expect(page.locator("#sheet .skeleton")).to_have_count(0)


def test_a_file_that_changes_after_it_was_chosen_is_the_picture_it_was(inspector, tmp_path):
    chosen = tmp_path / "mine.jpg"
    chosen.write_bytes(CAT)
    inspector.choose(chosen)
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    chosen.write_bytes(b"something else")
    with inspector.answer():
        inspector.page.locator("#method").select_option("layercam")
    expect(inspector.labels).to_have_text(["Egyptian cat"])
    expect(inspector.page.locator("#away")).to_be_hidden()


def test_a_file_that_cannot_be_read_is_told_of(inspector):
    inspector.page.evaluate(
        """() => {
            const gone = new File(["x"], "gone.jpg");
            gone.arrayBuffer = () => Promise.reject(new DOMException("", "NotReadableError"));
            const transfer = { files: [gone], items: [], types: ["Files"] };
            const happening = new Event("drop", { bubbles: true, cancelable: true });
            Object.defineProperty(happening, "dataTransfer", { value: transfer });
            document.body.dispatchEvent(happening);
        }"""
    )
    expect(inspector.page.locator("#picture-note")).to_have_text("“gone.jpg” cannot be read. Choose it again.")


def test_nothing_is_kept_in_the_browser(inspector):
    inspector.sample("cat")
    assert inspector.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    inspector.page.reload()
    expect(inspector.page.locator(".card")).to_have_count(1)  # the sample in the address, asked for anew
