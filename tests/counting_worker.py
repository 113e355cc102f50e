"""A worker in small for tests of the exporter: counts as told on its standard input, and answers scrapes."""

from __future__ import annotations

import sys
from pathlib import Path

from camserve import exporter

port, freeze_after = int(sys.argv[1]), int(sys.argv[2])
folder = exporter.share()
exporter.forget_the_dead(folder)

from camserve import counts  # noqa: E402
from camserve.groups import Groups  # noqa: E402
from camserve.metrics import Metrics  # noqa: E402
from camserve.response import Card  # noqa: E402

counts.use()
metrics = Metrics(Card("toy", "1.0", "net.py:Net", ()), Groups({}, ()), "features")
known = dict.fromkeys(("architecture", "layer", "exact", "device", "camserve", "torch", "python"), "x")
metrics.started(known, known, 2, 4_000_000)
exporter.serve(exporter.Exposition(Path(folder), freeze_after), "127.0.0.1", port)
print("ready", flush=True)
for line in sys.stdin:
    name, amount, *labels = line.split()
    metrics._at(name, *labels).inc(float(amount))
    print("done", flush=True)
