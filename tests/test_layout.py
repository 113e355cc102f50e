"""Layout rules that the import contracts in pyproject.toml cannot state."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "handler" / "camserve"
ENTRY = ROOT / "handler" / "camserve_handler.py"

# The settings, the places that start other programs with an environment, where prometheus_client has its folder, and
# where torch is told about memory.
READS_ENVIRONMENT = {"settings.py", "cli.py", "archive.py", "stack", "exporter.py", "machine.py"}

WITHOUT_TORCH = (
    "camserve.cli",
    "camserve.imaging.decode",
    "camserve.imaging.encode",
    "camserve.imaging.resize",
    "camserve.options",
    "camserve.render.draw",
    "camserve.request",
    "camserve.response",
    "camserve.settings",
    "camserve.shedding",
    "camserve.stack",
    "camserve.trigger",
)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def reads_environment(module: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os")
        for node in ast.walk(module)
    )


@pytest.mark.parametrize(
    "code", ["os.environ['A']", "os.getenv('A')", "from os import environ"], ids=["environ", "getenv", "from os"]
)
def test_the_check_for_the_environment_sees_every_way_to_it(code):
    assert reads_environment(ast.parse(code))


def test_only_the_settings_and_what_starts_programs_look_at_the_environment():
    found = {file.relative_to(PACKAGE).parts[0] for file in sources() if reads_environment(tree(file))}
    assert found <= READS_ENVIRONMENT
    assert not reads_environment(tree(ENTRY))


def test_the_entry_knows_the_pipeline_and_leaves_and_no_torchserve():
    names = {name for name in imported(tree(ENTRY)) if name.split(".")[0] in ("camserve", "ts")}
    assert names <= {
        "camserve",
        "camserve.errors",
        "camserve.imaging.guard",
        "camserve.monitor",
        "camserve.pipeline",
        "camserve.records",
        "camserve.settings",
    }


def test_the_entry_defines_one_class_as_torchserve_demands():
    assert [node.name for node in tree(ENTRY).body if isinstance(node, ast.ClassDef)] == ["CamserveHandler"]


def test_every_module_has_its_line_in_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    lines = next(one["layers"] for one in contracts if one["type"] == "layers")
    named = {name.strip().split(".")[1] for line in lines for name in line.replace("|", ":").split(":")}
    present = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert present - {"__init__"} == named


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_it_imports_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "handler").returncode == 0


def test_no_function_is_longer_than_sixty_lines():
    functions = (
        (file.name, node.name, (node.end_lineno or 0) - node.lineno + 1)
        for file in [*sources(), ENTRY]
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef)
    )
    assert [one for one in functions if one[2] > 60] == []
