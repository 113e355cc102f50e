"""A new version beside the old one, the default moved, the old one removed, while requests keep coming."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import requests
from served import MODEL, archive, report, served, steady, under_load, until
from service import Reply
from traffic import Ask

pytestmark = pytest.mark.live

SETTLE = 3
"""Seconds in which the old version answers what it was given; the document says 30, as long as the gateway waits."""


def test_an_upgrade_loses_no_request(tmp_path, long):
    store, new = tmp_path / "store", archive(tmp_path / "new", 1, version="2.0")
    archive(store, 1)
    shutil.copy(new, store / f"{MODEL}-2.mar")
    versions: list[str] = []
    tries = []
    with served(store, tmp_path / "state", TS_ENABLE_MODEL_API="true") as service:
        for number in range(10 if long else 1):
            old, new, file = [("1.0", "2.0", f"{MODEL}-2.mar"), ("2.0", "1.0", f"{MODEL}.mar")][number % 2]
            versions.clear()
            replaced = partial(_replace, f"http://127.0.0.1:{service.ports.management}/models", old, new, file)
            one = under_load(service, replaced, lambda: time.sleep(1), _noting(versions))
            tries.append(one)
            assert one.failed == []
            assert (versions[0], versions[-1]) == (old, new)
            registering = one.seen[-1].sent - one.at
            assert max(each.seconds for each in one.seen) < registering / 2, "nobody waits for the new version to load"
    report("an upgrade", tries)


def _replace(models: str, old: str, new: str, file: str) -> None:
    """The commands of docs/operations.md."""
    where = {"url": file, "model_name": MODEL, "initial_workers": "1", "synchronous": "false"}
    assert requests.post(models, params=where, timeout=60).status_code == 202
    until(lambda: _status(f"{models}/{MODEL}/{new}") == "READY")
    assert requests.put(f"{models}/{MODEL}/{new}/set-default", timeout=60).ok
    time.sleep(SETTLE)
    assert requests.delete(f"{models}/{MODEL}/{old}", timeout=60).ok


def _noting(versions: list[str]) -> Iterator[Ask]:
    """Steady traffic that notes which version answered."""
    for ask in steady():

        def check(reply: Reply, right: Callable[[Reply], None] | None = ask.check) -> None:
            assert right is not None
            right(reply)
            if reply.status == 200:
                versions.append(reply.json["model"]["version"])

        yield replace(ask, check=check)


def _status(url: str) -> str | None:
    """Of the version's worker."""
    workers = requests.get(url, timeout=60).json()[0]["workers"]
    return workers[0]["status"] if workers else None
