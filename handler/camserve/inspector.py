"""The page as one file: styles and scripts in their places, and a policy that allows exactly these."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from camserve.records import Answer

PAGE = Path(__file__).resolve().parent / "page"
"""The page's files, as the gateway serves them."""

_STYLE = re.compile(r'<link rel="stylesheet" href="page/([a-z]+\.css)">')
_SCRIPT = re.compile(r'<script src="page/([a-z]+\.js)"></script>')
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def inspector(name: str, version: str, native: bool) -> Answer:
    """What a browser's GET of the model answers.

    `native`: there is no gateway in between. TorchServe drops queries on some paths, so the page takes others.
    """
    document, policy = _document()
    facts = f'data-model="{html.escape(name)}" data-version="{html.escape(version)}"{" data-native" if native else ""}'
    body = document.replace('<html lang="en">', f'<html lang="en" {facts}>', 1).encode()
    return Answer(200, "OK", "text/html; charset=utf-8", body, _headers(policy))


def _headers(policy: str) -> Mapping[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept",
    }


@cache
def _document() -> tuple[str, str]:
    """The page with its files inlined, and its Content-Security-Policy."""
    document = (PAGE / "index.html").read_text(encoding="utf-8")
    hashes: dict[str, list[str]] = {"style": [], "script": []}

    def inlined(tag: str, found: re.Match[str]) -> str:
        text = (PAGE / found[1]).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag].append(f"'sha256-{digest}'")
        return f"<{tag}>{text}</{tag}>"

    document = _STYLE.sub(lambda found: inlined("style", found), document)
    document = _SCRIPT.sub(lambda found: inlined("script", found), document)
    return document, _POLICY.format(scripts=" ".join(hashes["script"]), styles=" ".join(hashes["style"]))
