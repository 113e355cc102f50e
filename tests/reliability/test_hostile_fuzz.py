"""Coverage-guided fuzzing of options, requests and pictures, in processes of their own: see fuzz.py."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from tqdm import tqdm

pytest.importorskip("atheris", reason="atheris has wheels for x86-64 only")

SHORT = {"requests": 600, "decoding": 1_500, "pictures": 400}
LONG = {"options": 20_000, "requests": 20_000, "answers": 19_000, "decoding": 20_000, "pictures": 19_000}
"""With the 2,000 of test_hostile_http.py these are 100,000."""
PART = 5_000
"""Cases of a process."""
STATUSES = {"200", "400", "413", "415", "422"}
GROWTH = {"options": 100, "requests": 100, "answers": 300, "decoding": 200, "pictures": 200}
"""Megabytes that a process may grow by, at its peak, after its first case began; what is seen is at most half of it."""
FUZZ = Path(__file__).with_name("fuzz.py")


@dataclass
class Run:
    """One process: a target, how many cases, its seed."""

    target: str
    cases: int
    seed: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def _report(self) -> Path:
        return self.folder / "report.json"

    @property
    def told(self) -> dict:
        """Its last report."""
        return json.loads(self._report.read_text()) if self._report.exists() else {"cases": 0}

    def start(self) -> None:
        self.folder.mkdir()
        command = [sys.executable, str(FUZZ), self.target, "--report", str(self._report)]
        command += ["--cases", str(self.cases), "--seed", str(self.seed)]
        with (self.folder / "said").open("wb") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said, cwd=self.folder)

    def check(self) -> None:
        """It ended well, and with all its cases."""
        said = (self.folder / "said").read_text(errors="replace")
        again = f"python {FUZZ} {self.target} --cases {self.cases} --seed {self.seed} --report FILE"
        assert self.process.returncode == 0, f"again with: {again}\n{said[-6000:]}"
        assert self.told["cases"] == self.cases, f"again with: {again}\n{said[-6000:]}"


def runs(wanted: dict[str, int], seed: int, folder: Path) -> list[Run]:
    return [
        Run(target, min(PART, cases - start), seed + start, folder / f"{target}-{start}")
        for target, cases in wanted.items()
        for start in range(0, cases, PART)
    ]


def carried_out(waiting: list[Run], at_once: int) -> None:
    """All of them, so many at a time, with a line of progress."""
    todo, going, done = list(waiting), [], []
    with tqdm(total=sum(run.cases for run in waiting), unit=" cases", desc="hostile input", mininterval=5) as line:
        try:
            while todo or going:
                while todo and len(going) < at_once:
                    going.append(todo.pop(0))
                    going[-1].start()
                time.sleep(0.2)
                for run in [one for one in going if one.process.poll() is not None]:
                    going.remove(run)
                    run.check()
                    done.append(run)
                line.update(sum(run.told["cases"] for run in done + going) - line.n)
        finally:
            for run in going:
                run.process.kill()
                run.process.wait()


def test_coverage_guided_fuzzing_finds_nothing(long, tmp_path):
    seed = int(os.environ.get("CAMSERVE_FUZZ_SEED") or (secrets.randbelow(2**31 - 10**6) if long else 1))
    print(f"\nhostile input: seed {seed}; CAMSERVE_FUZZ_SEED={seed} repeats it")
    all_runs = runs(LONG if long else SHORT, seed, tmp_path)
    carried_out(all_runs, os.cpu_count() or 1)
    for target in LONG if long else SHORT:
        mine = [run.told for run in all_runs if run.target == target]
        outcomes = sum((Counter(told["outcomes"]) for told in mine), Counter())
        grown = max(told["memory"]["peak"] - told["memory"]["before"] for told in mine) / 1e6
        print(f"{target}: {dict(outcomes.most_common())}; resident memory grew by {grown:.0f} MB at most")
        assert {kind.split()[0] for kind in outcomes} <= STATUSES | {"good", "describe"}
        assert grown < GROWTH[target], target
