"""From a folder to a report."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from camserve.errors import SetupError
from camserve.evaluate import evaluate
from camserve.evaluate.tables import escaped
from pictures import encoded

NAMED = ("gradcam", "cam", "eigencam", "saliency")


@pytest.fixture(scope="module")
def report(colours, painter, tmp_path_factory):
    folder = painter(tmp_path_factory.mktemp("whole") / "photos", 12)
    (folder / "a|b.png").write_bytes(encoded(np.zeros((64, 64, 3), np.uint8)))
    return evaluate(colours, folder, folder.parent / "deep" / "output", NAMED, ("act", "cells"))


@pytest.fixture(scope="module")
def text(report):
    return report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(report):
    return json.loads((report.parent / "results.json").read_text())


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the table whose head begins so."""
    lines = text[text.index(f"| {head}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_report_begins_with_the_recommendation(text):
    heading, _, first = text.split("\n")[:3]
    assert heading == "# Evaluation of toy (net.py:Colours)"
    assert re.fullmatch(r"\*\*Use `gradcam` at `(act|cells)`: \d\d % of its evidence lies .*\*\*", first)


def test_all_links_exist_and_are_pictures(report, text):
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert links == ["mosaic.png", "curves.png", "sheet.png"]
    for link in links:
        with Image.open(report.parent / link) as image:
            assert min(image.size) > 200
            assert image.format == "PNG"


def test_the_tables_have_a_cell_for_every_heading(text):
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_main_table_holds_every_method_and_control(text):
    found = {(row[0], row[1]): row for row in rows(text, "method | layer | grid")}
    assert ("`gradcam` = `cam`", "`act`") in found
    assert {("`saliency`", "`input`"), ("`eigencam`", "`act`"), ("*random*", "–"), ("*centre*", "–")} <= found.keys()
    assert found["`gradcam` = `cam`", "`act`"][2] == "8x8"
    assert found["`gradcam` = `cam`", "`act`"][-1] == "yes"
    assert found["`eigencam`", "`act`"][-1] == "no: class-blind by design"
    assert "up to a factor: `cam` at `act`" in text


def test_the_report_says_what_was_left_out_and_escapes_it(text):
    assert "- 12 of 13 pictures count: the model gives the model's own first class a probability of at least" in text
    assert "- a\\|b.png: its class has the probability 0.25, less than 0.3" in text


def test_the_numbers_are_all_in_the_results(results):
    assert results["recommended"]["method"] == "gradcam"
    assert len(results["pictures"]) == 12
    assert results["mosaics"] == {"count": 60, "side": 128}
    for one in results["subjects"]:
        assert one["means"]["energy"]["low"] <= one["means"]["energy"]["mean"] <= one["means"]["energy"]["high"]
        assert len(one["pictures"]["deletion"]) == 12
        assert np.shape(one["curves"]["insertion"]) == (12, 11)
        assert one["control"] == (one["differences"] == {})
        assert (one["means"]["correlation"]["mean"] is None) == one["control"]


def test_the_means_are_those_of_the_pictures(results):
    for one in results["subjects"]:
        for name, found in one["means"].items():
            if found["mean"] is not None:
                assert found["mean"] == pytest.approx(np.mean(one["pictures"][name]))


def test_the_same_seed_gives_the_same_report(colours, photos, tmp_path):
    found = [evaluate(colours, photos, tmp_path / name, ("gradcam",), (), 3).parent for name in ("one", "two")]
    for name in ("report.md", "results.json"):
        assert (found[0] / name).read_bytes() == (found[1] / name).read_bytes()


def test_pictures_of_one_class_give_no_mosaic_and_no_recommendation(colours, painter, tmp_path):
    folder = painter(tmp_path / "photos", 44)
    for file in folder.iterdir():
        if int(file.stem) % 4:
            file.unlink()
    text = evaluate(colours, folder, tmp_path / "output", ("gradcam",)).read_text(encoding="utf-8")
    assert "**Inconclusive: " in text
    assert "Mosaics: none, because all pictures are of one class." in text
    assert "mosaic.png" not in text


def test_mistakes_are_told_before_anything_is_written(colours, painter, tmp_path):
    output = tmp_path / "output"
    few = painter(tmp_path / "few", 9)
    for arguments, sentence in [
        ((few, output), "9 of 9 in"),
        ((few, output, ("nothing",)), "expected one of cam, gradcam"),
        ((few, output, (), ("nowhere",)), "'nowhere' is no layer"),
        ((few, output, (), (), -1), "Expected a seed of 0 or more, got -1."),
    ]:
        with pytest.raises(SetupError, match=sentence):
            evaluate(colours, *arguments)
    assert not output.exists()


def test_markdown_in_names_is_shown_as_it_is():
    assert escaped("a|b *c* _d_ `e` [f](g) <h>\nnew") == r"a\|b \*c\* \_d\_ \`e\` \[f\](g) \<h\> new"
