"""Where the figures go: one section of RESULTS.md a script, with the machine they were measured on."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import psutil
import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = "# Results\n\nRatios measured side by side; each section names the script that makes it.\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Processor, memory, GPU, threads and versions in one line; the processors are those that may be used."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    processor = found[1] if found else platform.processor() or platform.machine()
    parts = [
        processor,
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} processors",
        f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "bfloat16" if has_bfloat16() else "no bfloat16",
        *([torch.cuda.get_device_name()] if torch.cuda.is_available() else []),
        f"{torch.get_num_threads()} threads",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        date.today().isoformat(),
    ]
    return ", ".join(parts)


def has_bfloat16() -> bool:
    """Whether the processor has arithmetic for it."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def write(title: str, text: str) -> None:
    """Put `text` under `title`, in place of what an earlier run wrote there."""
    whole = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else _HEAD
    head, *sections = re.split(r"^(?=## )", whole, flags=re.MULTILINE)
    kept = [section for section in sections if not section.startswith(f"## {title}\n")]
    kept.append(f"## {title}\n\n{text}\n\nMeasured on: {machine()}.\n")
    RESULTS.write_text("\n".join([head.rstrip() + "\n", *(section.rstrip() + "\n" for section in sorted(kept))]))
    print(f"Wrote {RESULTS.name}: {title}.")
