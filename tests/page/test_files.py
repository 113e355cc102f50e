"""The page's files as they are written and as they are put into one; no browser is needed."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from camserve.errors import MissingImage
from camserve.inspector import PAGE, inspector
from camserve.pipeline import Pipeline
from camserve.records import Answer, Row
from camserve.render import colormaps
from camserve.request import read

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
SCRIPTS = sorted(PAGE.glob("*.js"))


class Tags(HTMLParser):
    """All tags with their attributes, and the text of styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.cdata_elem:
            self.inline.append((self.cdata_elem, data))


def row(method: str | None = "GET", accept: str = BROWSER, **fields: bytes) -> Row:
    headers = {"accept": accept} | ({"x-request-method": method} if method else {})
    return Row("r", fields, headers)


def ask(pipeline: Pipeline, one: Row) -> Answer:
    (answer,) = pipeline.answer([one])
    return answer


# The files


def test_the_page_has_no_script_or_style_of_its_own_in_the_html():
    tags = Tags((PAGE / "index.html").read_text())
    assert tags.inline == []
    attributes = {name for _, given in tags.tags for name in given}
    assert not {name for name in attributes if name.startswith("on") or name == "style"}


def test_the_page_loads_every_file_there_is_and_nothing_else():
    loaded = re.findall(r'(?:href|src)="page/([^"]+)"', (PAGE / "index.html").read_text())
    assert sorted(loaded) == sorted(file.name for file in PAGE.glob("*.*") if file.suffix in (".js", ".css"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_a_script_makes_no_html_from_text_and_stores_nothing(script):
    text = script.read_text()
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|localStorage|sessionStorage|cookie"
    assert re.findall(forbidden, text) == []
    assert re.findall(r"https?://", text) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_a_script_is_a_short_one_about_one_thing(script):
    lines = script.read_text().splitlines()
    assert lines[0] == '"use strict";'
    assert len(lines) <= 250
    names = re.findall(r"^(?:const|class) (\w+)", script.read_text(), re.MULTILINE)
    assert [name.lower() for name in names] == [script.stem]


def test_the_colours_are_the_services_own():
    tables = dict(re.findall(r'^ {4}(\w+): "([\w+/=]+)"', (PAGE / "colours.js").read_text(), re.MULTILINE))
    assert {"jet", "viridis", "magma", "inferno"} <= set(tables)
    for name, text in tables.items():
        table = np.frombuffer(base64.b64decode(text), np.uint8).reshape(256, 3)
        assert np.array_equal(table, colormaps.table(name)), name


# One file


def test_only_what_is_inlined_is_allowed(seeded):
    answer = ask(seeded, row())
    tags = Tags(answer.body.decode())
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    for tag in ("script", "style"):
        texts = [text for kind, text in tags.inline if kind == tag]
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]
        assert hashes
        assert policy[f"{tag}-src"].split() == hashes
    assert not [given for tag, given in tags.tags if tag in ("script", "link") and {"src", "href"} & set(given)][1:]
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"


def test_it_is_html_that_nothing_else_may_be_made_of(seeded):
    answer = ask(seeded, row())
    assert (answer.status, answer.mime) == (200, "text/html; charset=utf-8")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_it_names_the_model_and_whether_there_is_a_gateway(seeded):
    html = Tags(ask(seeded, row()).body.decode()).tags[0][1]
    assert (html["data-model"], html["data-version"]) == (seeded.card.name, seeded.card.version)
    assert "data-native" not in html
    assert "data-native" in Tags(ask(seeded, row(method=None)).body.decode()).tags[0][1]


def test_a_models_name_is_text():
    html = Tags(inspector('"><script>', "1", native=False).body.decode()).tags[0][1]
    assert html["data-model"] == '"><script>'


@pytest.mark.parametrize("accept", ["application/json, text/html", "*/*", "", "text/htmlx", "image/jpeg"])
def test_whoever_does_not_ask_for_html_first_gets_the_description(seeded, accept):
    answer = ask(seeded, row(accept=accept))
    assert answer.mime == "application/json"
    assert b'"default_layer"' in answer.body


def test_a_post_without_a_picture_is_an_error_also_for_a_browser():
    with pytest.raises(MissingImage):
        read(row(method="POST"), 8)


def test_a_browser_that_sends_a_picture_gets_an_answer(seeded):
    assert not read(row(method="POST", body=b"picture"), 8).as_page
    assert not read(row(method=None, data=b"picture"), 8).as_page
