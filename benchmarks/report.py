"""Where the figures go: one section of RESULTS.md a script, with the machine they were measured on."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = "# Results\n\nRatios measured side by side; each section names the script that makes it.\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Processor, threads and versions in one line."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    processor = found[1] if found else platform.processor() or platform.machine()
    return (
        f"{processor}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {date.today().isoformat()}"
    )


def write(title: str, text: str) -> None:
    """Put `text` under `title`, in place of what an earlier run wrote there."""
    whole = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else _HEAD
    head, *sections = re.split(r"^(?=## )", whole, flags=re.MULTILINE)
    kept = [section for section in sections if not section.startswith(f"## {title}\n")]
    kept.append(f"## {title}\n\n{text}\n\nMeasured on: {machine()}.\n")
    RESULTS.write_text("\n".join([head.rstrip() + "\n", *(section.rstrip() + "\n" for section in sorted(kept))]))
    print(f"Wrote {RESULTS.name}: {title}.")
