"""A real browser without a window: what a page looks like, and what it complains about."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE = 60.0
_TIME_TO_DRAW = 5000
"""Milliseconds of the page's own clock, which runs ahead while nothing happens."""


class Seen(NamedTuple):
    """A page as the browser has it after its scripts ran.

    Attributes:
        dom: the whole document, as HTML.
        texts: what stands in it, without what is in scripts and styles.
        complaints: what its console says.
    """

    dom: str
    texts: list[str]
    complaints: list[str]


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the base class's
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = self._hidden and tag not in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.found.append(" ".join(data.split()))


def _run(page: Path, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("There is no Chromium; install it and try again: scripts/setup.sh browser", pytrace=False)
    command = [
        found,
        "--headless",
        "--no-sandbox",  # it does not start as root with one; the page is ours
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        f"--user-data-dir={directory / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # a page that opens offline does not notice
        f"--virtual-time-budget={_TIME_TO_DRAW}",
        *options,
        page.resolve().as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)


def open_page(page: Path, directory: Path) -> Seen:
    """Open a page offline; `directory` takes the browser's files."""
    done = _run(page, directory, "--dump-dom")
    assert done.returncode == 0, done.stderr
    texts = _Texts()
    texts.feed(done.stdout)
    return Seen(done.stdout, texts.found, re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr))


def screenshot(page: Path, picture: Path, height: int) -> bytes:
    """Return a PNG of a page, 1160 pixels wide, which is left at `picture`."""
    done = _run(page, picture.parent, f"--window-size=1160,{height}", f"--screenshot={picture}")
    assert done.returncode == 0, done.stderr
    return picture.read_bytes()
