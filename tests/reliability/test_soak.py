"""Mixed traffic for an hour, or for a minute: nothing grows, and the counters are those of the requests sent.

`make soak` is the hour. CAMSERVE_SOAK_MINUTES makes it another time, CAMSERVE_SOAK_PICTURE=FILE draws what was seen.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import flatness
import numpy as np
import pytest
import requests
from flatness import Sample, Tolerance, Watch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from requests.models import RequestEncodingMixin
from service import CAT, COFFEE, Reply, Service, b64, packed, serving
from traffic import Ask, Seen, Traffic

from monitoring.prometheus import Prometheus

MINUTES = 60.0
SHORT_MINUTES = 0.4
SAMPLES, SHORT_SAMPLES = 60, 16
CLIENTS = 4

FLAT = Tolerance(share=0.02, megabytes={"workers": 10, "TorchServe": 10, "gateway": 2}, time=1.4)

FLAT_SHORT = Tolerance(share=0.02, megabytes={"workers": 20, "TorchServe": 80, "gateway": 2}, time=2)
"""In a minute Java's heap is still being filled, and a neighbour of the machine counts for more."""

OK = b'"explanation":{"status":"ok"'


# --- the traffic, and what it is to count --------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A request, its status, and what it adds to the counters."""

    name: str
    query: str = ""
    body: bytes = CAT
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/predictions/classifier"
    status: int = 200
    proof: bytes = b'"predictions":['
    explained: bool = False
    pictures: int = 1
    errors: tuple[str, ...] = ()
    maps: tuple[tuple[str, str], ...] = ()
    """Method and status of each class explained."""

    @property
    def ask(self) -> Ask:
        """What is sent."""

        def check(reply: Reply) -> None:
            assert reply.status == self.status, f"expected {self.status}, got {reply.status}: {reply.body[:200]!r}"
            assert self.proof in reply.body, f"expected {self.proof!r} in {reply.body[:200]!r}"

        return Ask(self.path + self.query, self.body, self.headers, check, self.name)

    @property
    def counts(self) -> Counter[str]:
        """Samples by name and label, and by how much they grow."""
        outcome = "ok" if self.status < 400 else "client_error"
        found = Counter({f"requests explained={str(self.explained).lower()} outcome={outcome}": 1})
        found += Counter({"pictures": self.pictures})
        found.update(f"errors type={one}" for one in self.errors)
        found.update(f"explanations method={method} status={status}" for method, status in self.maps)
        return found


def large() -> bytes:
    """A picture of 1.4 MB, more than the gateway keeps in memory."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def kserve() -> bytes:
    """Plain, explained, broken."""
    instances = [{"b64": b64(CAT)}, {"b64": b64(COFFEE), "explain": True, "classes": "top:2"}, {"b64": b64(CAT[:999])}]
    return json.dumps({"instances": instances}).encode()


_FORM, _FORM_TYPE = RequestEncodingMixin._encode_files({"data": ("a.jpg", CAT)}, {"explain": "true", "maps": "grid"})
_JSON = {"Content-Type": "application/json"}
_GRADCAM = (("gradcam", "ok"),)

KINDS = (
    Kind("plain"),
    Kind("another", body=COFFEE),
    Kind("explained", "?explain=true", proof=OK, explained=True, maps=_GRADCAM),
    Kind("large", body=large()),
    Kind(
        "layercam",
        "?explain=true&method=layercam&layer=blocks.5.0&classes=top:2&maps=overlay,grid,regions",
        proof=OK,
        explained=True,
        maps=(("layercam", "ok"),) * 2,
    ),
    Kind("refused", "?explain=true&wish=1", status=400, proof=b"InvalidOption", pictures=0, errors=("InvalidOption",)),
    Kind("json", body=json.dumps({"data": b64(COFFEE)}).encode(), headers=_JSON),
    Kind("form", body=_FORM, headers={"Content-Type": _FORM_TYPE}, proof=OK, explained=True, maps=_GRADCAM),
    Kind("broken", body=CAT[:9999], status=422, proof=b"Undecodable", pictures=0, errors=("Undecodable",)),
    Kind(
        "kserve",
        path="/v1/models/classifier:predict",
        body=kserve(),
        headers=_JSON,
        proof=b'"explanations":[null,{"status":"ok"',
        explained=True,
        pictures=2,
        errors=("Undecodable",),
        maps=_GRADCAM * 2,
    ),
    Kind(
        "no picture", body=b"words", status=415, proof=b"UnsupportedFormat", pictures=0, errors=("UnsupportedFormat",)
    ),
    Kind(
        "crop",
        "?explain=true&crop=90,0,280,280&maps=heatmap&max_side=300&verify=true",
        proof=OK,
        explained=True,
        maps=_GRADCAM,
    ),
    Kind("picture", headers={"Accept": "image/webp"}, proof=b"WEBP", explained=True, maps=_GRADCAM),
)


def due(seen: list[Seen]) -> Counter[str]:
    """What the requests sent add up to."""
    total: Counter[str] = Counter()
    for name, times in Counter(one.ask.kind for one in seen).items():
        (kind,) = (kind for kind in KINDS if kind.name == name)
        total.update({counter: times * by for counter, by in kind.counts.items()})
    return total


# --- the counters --------------------------------------------------------------------------------------------------

COUNTED = {
    "camserve_requests_total": ("requests", ("explained", "outcome")),
    "camserve_errors_total": ("errors", ("type",)),
    "camserve_explanations_total": ("explanations", ("method", "status")),
    "camserve_batch_rows_sum": ("pictures", ()),
}
"""Sample -> what it is called in `Kind.counts`, and its labels."""


def named(name: str, labels: Mapping[str, str], value: float) -> tuple[str, int]:
    short, wanted = COUNTED[name]
    return " ".join([short, *(f"{label}={labels[label]}" for label in wanted)]), round(value)


def scraped(service: Service) -> Counter[str]:
    """The counters at the scrape port."""
    text = requests.get(f"http://127.0.0.1:{service.stack.ports.scrape}/metrics", timeout=10).text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return Counter(dict(named(one.name, one.labels, one.value) for one in samples if one.name in COUNTED))


def stored(prometheus: Prometheus) -> Counter[str]:
    """The counters as Prometheus has them."""
    found = prometheus.get("query", query=f'{{__name__=~"{"|".join(COUNTED)}"}}')["result"]
    series = [(one["metric"]["__name__"], one["metric"], float(one["value"][1])) for one in found]
    return Counter(dict(named(*one) for one in series))


def settled(counters: Callable[[], Counter[str]], expected: Counter[str]) -> Counter[str]:
    """The counters once they are what is expected, or as they stand after a while."""
    deadline = time.monotonic() + 20
    while (found := counters()) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


# --- an hour -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    with serving(packed(tmp_path_factory.mktemp("classifier")), "classifier") as stack:
        yield Service(stack)


@pytest.mark.live
@pytest.mark.tool("prometheus")
def test_nothing_grows_and_every_request_is_counted(service, tmp_path, long):
    minutes = float(os.environ.get("CAMSERVE_SOAK_MINUTES", MINUTES)) if long else SHORT_MINUTES
    prometheus = Prometheus(tmp_path, service.stack) if long else None
    with prometheus.running() if prometheus else nullcontext():
        counters = (lambda: stored(prometheus)) if prometheus else (lambda: scraped(service))
        before = settled(counters, scraped(service))
        traffic = Traffic(service.gateway, cycle([kind.ask for kind in KINDS]), CLIENTS)
        every = minutes * 60 / (SAMPLES if long else SHORT_SAMPLES)
        with traffic, Watch(service.stack, traffic.seen, every) as watch:
            time.sleep(minutes * 60)
        expected = before + due(traffic.seen)
        found = settled(counters, expected)
    report(watch.samples, traffic.seen, long)
    faults = [f"{one.ask.kind}: {one.fault}" for one in traffic.seen if one.fault]
    assert not faults, f"{len(faults)} of {len(traffic.seen)}: {faults[:5]}"
    differences = {name: (found[name], expected[name]) for name in found | expected if found[name] != expected[name]}
    assert not differences, f"counted and sent differ: {differences}"
    assert flatness.growth(watch.samples, FLAT if long else FLAT_SHORT) == []


def report(samples: list[Sample], seen: list[Seen], long: bool) -> None:
    """What was seen, for docs/reliability.md."""
    kinds = Counter(one.ask.kind for one in seen)
    print(f"\n{len(seen)} requests: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}")
    print(flatness.table(samples))
    file = os.environ.get("CAMSERVE_SOAK_PICTURE")
    if long and file:
        flatness.picture(samples, Path(file))
