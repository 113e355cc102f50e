"""Proves every network of tests/catalogue.py and writes what was found to docs/networks.md.

    python benchmarks/networks.py

Weights are seeded random numbers and inputs are noise; nothing is downloaded. On two cores it takes some minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

import report

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from catalogue import NETWORKS, Findings, Network, examine  # noqa: E402

DOCUMENT = ROOT / "docs" / "networks.md"
HEAD = (
    "network",
    "input",
    "default layer",
    "channels",
    "grid",
    "exact",
    "why",
    "largest ledger error",
    "deviation from float64",
)
TEXT = """\
# Networks

Each of these networks was proven at its own input size, with seeded random weights: its default layer was found without
the setting `layer`, every check made at start passed, and a batch of explained and plain rows had the logits of a plain
batch, bit for bit. Exact means that the mean of a Grad-CAM map and the bias add up to the logit. The ledger error is
what is missing from that sum, relative to the logit or to 1 where the logit is smaller. The last column compares the
maps with Grad-CAM by hand in float64, with plain autograd: the largest difference relative to the map's largest value.

`python benchmarks/networks.py` makes this table, `tests/cam/test_networks.py` asserts it. The networks of `networks.py`
are modules of one's own, from a file in `tests/`.

{table}

Measured on: {machine}.
"""


def row(network: Network, found: Findings) -> list[str]:
    """A line of the table: what was found, and the reason that is known."""
    return [
        f"`{network.architecture}`",
        str(network.side),
        f"`{found.layer}`",
        str(found.channels),
        " x ".join(map(str, found.grid)),
        "yes" if found.exact else "no",
        network.why,
        "-" if found.ledger is None else f"{found.ledger:.1e}",
        f"{found.deviation:.1e}",
    ]


def rows(networks: Sequence[Network]) -> list[list[str]]:
    """A line for each network, with progress."""
    torch.backends.mha.set_fastpath_enabled(False)  # as camserve.model.load does
    lines = []
    with tqdm(networks, unit="network") as progress:
        for network in progress:
            progress.set_postfix_str(network.architecture)
            found = examine(network)
            if not found.same_logits:
                raise SystemExit(f"Explaining {network.architecture} changes its logits.")
            lines.append(row(network, found))
    return lines


def main() -> None:
    """Prove all, then write."""
    table = report.table(HEAD, rows(NETWORKS))
    DOCUMENT.write_text(TEXT.format(table=table, machine=report.machine()), encoding="utf-8")
    print(f"Wrote {DOCUMENT.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
