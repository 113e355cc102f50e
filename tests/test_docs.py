"""What the documents say is what the code does: names, defaults, links, examples."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import jsonschema
import pytest

from camserve.cam.methods import METHODS
from camserve.errors import RequestError
from camserve.options import Options, parse
from camserve.render.colormaps import COLORMAPS
from camserve.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "model_store").glob("*.md")])
PACKAGE = ROOT / "handler" / "camserve"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next of the same level."""
    level = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert level, f"there is no heading {title!r}"
    rest = text[level.end() :]
    following = re.search(rf"^#{{1,{len(level[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def table(text: str) -> list[list[str]]:
    """The rows of all tables, without their heads."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    heads = {at - 1 for at, row in enumerate(rows) if set("".join(row)) <= {"-"}}
    return [row for at, row in enumerate(rows) if at not in heads and at - 1 not in heads]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def options_table() -> dict[str, list[str]]:
    return {row[0].strip("`"): row[1:] for row in table(section(read("README.md"), "Options"))}


def imported(file: Path) -> set[str]:
    """What a module imports, wherever in its text; of `from a import b` both `a` and `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_readme_names_what_a_worker_needs():
    files, names = [ROOT / "handler" / "camserve_handler.py"], set()
    for file in files:  # which grows
        names |= imported(file)
        places = [ROOT / "handler" / name.replace(".", "/") for name in names]
        every = [place.with_suffix(".py") for place in places] + [place / "__init__.py" for place in places]
        files += [one for one in every if one.is_file() and one not in files]
    assert len(files) > 50
    outside = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"camserve"}
    needed = {packages_distributions()[name][0].lower().replace("_", "-") for name in outside}
    told = re.search(r"The workers' Python needs (.*?) in the versions", read("README.md"), re.DOTALL)
    assert set(re.split(r",\s+|\s+and\s+", told[1].lower())) == needed


def test_the_readme_lists_the_options_in_the_order_of_the_code():
    assert list(options_table()) == list(Options.model_fields)


@pytest.mark.parametrize("name", Options.model_fields)
def test_the_readme_gives_the_default_of(name):
    text = options_table()[name][0]
    stated = None if text == "none" else getattr(parse({name: text.strip("`")}), name)
    assert stated == getattr(Options(), name)


def test_the_readme_names_every_method():
    assert re.findall(r"`(.+?)`", options_table()["method"][1]) == list(METHODS)


@pytest.mark.parametrize("name", Options.model_fields)
def test_the_contract_explains_the_option(name):
    assert f"**`{name}`** (" in section(read("docs/http-api.md"), "Options")


def test_the_contract_lists_the_methods_as_they_are():
    rows = table(section(read("docs/http-api.md"), "Options"))
    assert {row[0].strip("`"): row[1] for row in rows} == {name: method.paper for name, method in METHODS.items()}


def test_the_contract_lists_the_colour_maps():
    paragraph = re.search(r"\*\*`colormap`\*\*.*?\n\n", read("docs/http-api.md"), re.DOTALL)
    assert paragraph
    assert {*re.findall(r"`(\w+)`", paragraph[0])} - {"colormap", "polarity", "both"} == set(COLORMAPS)


def test_the_contract_lists_the_handlers_errors():
    text = section(read("docs/http-api.md"), "Errors").split("From the gateway:")[0]
    stated = {(int(row[0]), row[1].strip("`")) for row in table(text)}
    assert stated == {(kind.status, kind.__name__) for kind in RequestError.__subclasses__()}


def test_the_contract_lists_the_gateways_errors():
    text = section(read("docs/http-api.md"), "Errors").split("From the gateway:")[1]
    stated = {(row[0], row[1].strip("`")) for row in table(text)}
    template = read("config/nginx.conf.template")
    refusals = re.findall(r"'\{\"code\":(\d+|\$status),\"type\":\"(\w+)\"", template)
    assert stated == {(code.replace("$status", "other"), kind) for code, kind in refusals}


def test_the_contract_gives_every_limit_as_the_settings_have_it():
    stated = {
        row[2].removeprefix("setting ").strip("`"): row[1] for row in table(section(read("docs/http-api.md"), "Limits"))
    }
    for name, field in Settings.model_fields.items():
        if not name.startswith("max_"):
            continue
        number = re.match(r"([\d,]+) ?(GB|MB|KiB)?", stated[name])
        assert number, name
        unit = {"": 1, "KiB": 1024, "MB": 10**6, "GB": 10**9}[number[2] or ""]
        assert int(number[1].replace(",", "")) * unit == field.default, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def test_the_answer_in_the_readme_fits_the_schema():
    (answer,) = blocks(read("README.md"), "json")
    schema = json.loads((PACKAGE / "schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(answer.replace("...", "")), schema)


def test_commands_to_execute_ask_the_gateway_with_a_picture_that_is_there():
    for name in ("README.md", "docs/http-api.md"):
        for command in "".join(blocks(read(name), "sh")).splitlines():
            assert "curl " in command, command
            assert "http://localhost:8080/" in command, command
            for picture in re.findall(r"handler/\S+?\.jpg", command):
                assert (ROOT / picture).is_file(), picture


def test_the_architecture_has_a_line_for_every_module():
    stated = {row[0].strip("`") for row in table(section(read("docs/architecture.md"), "The house"))}
    modules = {f"camserve/{file.name}" for file in PACKAGE.glob("*.py") if file.stem != "__init__"}
    packages = {f"camserve/{file.parent.name}/" for file in PACKAGE.glob("*/__init__.py")}
    assert modules | packages <= stated
    assert all((ROOT / "handler" / name).exists() for name in stated)


def test_the_architecture_draws_the_import_contract():
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    drawn = blocks(section(read("docs/architecture.md"), "Who may import whom"), "")[0].splitlines()
    stated = [{name.strip() for name in re.split("  +", line)[0].split(",")} for line in drawn]
    assert stated == [{name.strip().removeprefix("camserve.") for name in re.split("[|:]", line)} for line in layers]


def test_the_make_targets_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z]+)", document.read_text(encoding="utf-8"))) <= targets, document


def test_pictures_are_small():
    pictures = [*(ROOT / "docs" / "pictures").iterdir()]
    assert pictures
    assert all(picture.stat().st_size < 100_000 for picture in pictures)


def test_the_tests_that_show_security_exist():
    file = ""
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", read("SECURITY.md"))
    shown = [pair for pair in named if any(pair)]
    assert len(shown) > 20
    for path, name in shown:
        file = path or file
        assert not name or f"\ndef {name}(" in read(file), (file, name)
