"""Coverage-guided fuzzing of one target: libFuzzer, by way of atheris, goes on from inputs that reach new lines.

    python tests/reliability/fuzz.py TARGET --cases N --seed S --report FILE

The code under test is camserve's own and Pillow's Python. FILE has how far it is, as JSON; a case that fails is shown
with its traceback and left beside FILE, and the status is not 0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "live"), str(HERE.parents[1] / "handler")]
_WATCHED = [
    "camserve.errors",
    "camserve.form",
    "camserve.imaging",
    "camserve.options",
    "camserve.request",
    "camserve.plan",
    "PIL",
]
_EVERY = 200
"""Cases between two reports."""
_HANG = 120
"""Seconds after which one case counts as a hang; the machine may be slow."""
_MOST_BYTES = 64 * 1024

Case = Callable[[Any], Counter[str]]
"""Tries an input; says what came of it and raises what should not be."""


def options() -> Case:
    """Options as values by name."""
    from hostile import parsed_options

    return parsed_options


def requests() -> Case:
    """Rows of every form, up to the pictures and options in them."""
    from hostile import read_row

    return read_row


def answers() -> Case:
    """Rows of every form, through the whole path."""
    judge = _judge()
    return lambda row: _new(judge, [row])


def decoding() -> Case:
    """Pictures, to pixels."""
    from hostile import decoded

    return decoded


def pictures() -> Case:
    """Pictures, through the whole path, explained."""
    from camserve.records import Row

    judge = _judge()
    return lambda image: _new(judge, [Row("fuzzed", {"data": image, "explain": b"true"}, {})])


TARGETS: dict[str, Callable[[], Case]] = {one.__name__: one for one in (options, requests, answers, decoding, pictures)}


def _judge() -> Any:
    from judge import Judge

    import toynets

    return Judge(toynets.loaded(Path(tempfile.mkdtemp(prefix="camserve-fuzz-"))))


def _new(judge: Any, rows: list[Any]) -> Counter[str]:
    """The outcomes of these rows alone."""
    judge.outcomes.clear()
    judge(rows)
    return Counter(judge.outcomes)


# --- libFuzzer ----------------------------------------------------------------------------------------------


def main() -> None:
    """Fuzz until the cases are used up."""
    asked = _arguments()
    with atheris.instrument_imports(include=_WATCHED, enable_loader_override=False):
        import hostile  # noqa: F401  # and by it all that is watched
    case = TARGETS[asked.target]()
    tried = Tried(asked.cases, asked.report, case)
    corpus = asked.report.with_suffix(".corpus")
    corpus.mkdir(exist_ok=True)
    how: dict[str, Any] = {}
    one = _from_bytes(asked.target, tried)
    if asked.target in ("decoding", "pictures"):
        from mutation import real

        for index, image in enumerate(real().values()):
            (corpus / str(index)).write_bytes(image)
        how["custom_mutator"] = _mutator
    flags = [f"-seed={asked.seed}", f"-timeout={_HANG}", "-rss_limit_mb=6000", f"-max_len={_MOST_BYTES}"]
    flags += [f"-artifact_prefix={asked.report.parent}/", "-print_final_stats=1", "-len_control=0"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, **how)
    atheris.Fuzz()


class Tried:
    """Runs cases, sums up and ends the process after the last."""

    def __init__(self, cases: int, report: Path, case: Case) -> None:
        self._most, self._report, self._case = cases, report, case
        self._cases, self._outcomes = 0, Counter[str]()
        self._before = 0

    def __call__(self, value: Any) -> None:
        """One case."""
        if not self._cases:
            self._begin()
        self._outcomes += self._case(value)
        self._cases += 1
        last = self._cases == self._most
        if last or self._cases % _EVERY == 0:
            self._tell()
        if last:
            sys.stdout.flush()
            os._exit(0)

    def _begin(self) -> None:
        """Memory counts from here: what draws the cases is loaded."""
        from hostile import memory

        Path("/proc/self/clear_refs").write_text("5")  # the peak begins now
        self._before = memory("VmRSS")

    def _tell(self) -> None:
        from hostile import memory

        resident = {"before": self._before, "peak": memory("VmHWM")}
        told = {"cases": self._cases, "outcomes": dict(self._outcomes), "memory": resident}
        part = self._report.with_suffix(".part")
        part.write_text(json.dumps(told))
        part.replace(self._report)


def _from_bytes(target: str, tried: Tried) -> Callable[[bytes], None]:
    """What libFuzzer calls. For structured inputs its bytes are the choices of hypothesis."""
    if target in ("decoding", "pictures"):
        return tried
    from hypothesis import HealthCheck, given, settings
    from rows import options, rows

    strategy = options() if target == "options" else rows()
    quiet = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    return quiet(given(strategy)(tried.__call__)).hypothesis.fuzz_one_input  # type: ignore[attr-defined,no-any-return]


def _mutator(data: bytes, most: int, seed: int) -> bytes:
    """Half our own accidents, half libFuzzer's, both with a PNG's checksums set right."""
    from mutation import mutated, resealed

    random = Random(seed)
    if random.random() < 0.5:
        return mutated(data or b"\0", random)[:most]
    return resealed(atheris.Mutate(data, most))[:most]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
