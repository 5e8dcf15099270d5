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


ARGUMENTS = (
    "--no-sandbox",  # it does not start as root with one; the page is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def find_chromium() -> str:
    """Return the browser's path; fail where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("There is no Chromium; install it and try again: scripts/setup.sh browser", pytrace=False)
    return found


class Seen(NamedTuple):
    """A page as the browser has it after its scripts ran.

    Attributes:
        dom: the whole document, as HTML.
        texts: what stands in it, without what is in scripts and styles.
        complaints: what its console says.
        picture: what it looks like, a PNG.
    """

    dom: str
    texts: list[str]
    complaints: list[str]
    picture: bytes


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


def open_page(page: Path, directory: Path, height: int = 1000) -> Seen:
    """Open a page offline.

    Args:
        page: the file.
        directory: takes the browser's files, and what it has drawn as page.png.
        height: of the window, in pixels; it is 1160 wide.
    """
    picture = directory / "page.png"
    command = [
        find_chromium(),
        "--headless",
        *ARGUMENTS,
        "--enable-logging=stderr",
        f"--user-data-dir={directory / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # a page that opens offline does not notice
        f"--virtual-time-budget={_TIME_TO_DRAW}",
        f"--window-size=1160,{height}",
        f"--screenshot={picture}",
        "--dump-dom",
        page.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    texts = _Texts()
    texts.feed(done.stdout)
    complaints = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
    return Seen(done.stdout, texts.found, complaints, picture.read_bytes())
