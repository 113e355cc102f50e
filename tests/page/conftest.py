"""Debian's chromium, and visitors with a window of their own."""

from __future__ import annotations

import shutil
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsing import Inspector
from playwright.sync_api import Browser, expect, sync_playwright

expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def browser():
    """One browser for the session; every test has a context of its own, as if it were another visitor."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"],  # containers run the tests as root
        )
        yield running
        running.close()


@pytest.fixture
def visitor(browser: Browser, service):
    """visitor(width=..., ...): an inspector in a window of its own, not opened yet; nothing may break its policy."""
    contexts, all_of_them = [], []

    def come(width: int = 1280, height: int = 900, **more: Any) -> Inspector:
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        all_of_them.append(Inspector(context.new_page(), service.gateway))
        return all_of_them[-1]

    yield come
    for context in contexts:
        context.close()
    assert [fault for one in all_of_them for fault in one.faults] == []
    foreign = {urlsplit(one.url).netloc for each in all_of_them for one in each.requests if one.url.startswith("http")}
    assert foreign <= {urlsplit(service.gateway).netloc, urlsplit(service.native).netloc}


@pytest.fixture
def inspector(visitor) -> Inspector:
    """The inspector, opened at the gateway's own address."""
    return visitor().open()
