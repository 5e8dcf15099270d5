"""A browser that stays open, and a dashboard to look at with it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.chromium import ARGUMENTS, find_chromium
from tests.commands import command_line, environment
from tests.mosquitto import Mosquitto

_PATIENCE = 20.0


class Dashboard(NamedTuple):
    """A running `mlade dashboard`.

    Attributes:
        url: its address, with a slash at the end.
        log: what it has printed.
    """

    url: str
    log: Callable[[], str]


class Opened(NamedTuple):
    """A page in the browser.

    Attributes:
        page: Playwright's.
        asked: for what it has asked, other than of its own host; and what it complained of.
    """

    page: Page
    complaints: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Open pages; at the end none may have complained, or asked anybody but its own host for anything."""
    complaints: list[str] = []
    contexts = []

    def opened(url: str) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        own = re.match(r"https?://[^/]+/", url)
        assert own
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if _is_foreign(asked.url, own[0]) else None)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _is_foreign(url: str, own: str) -> bool:
    return not url.startswith((own, own.replace("http", "ws", 1), "data:", "blob:"))


@pytest.fixture
def start_dashboard(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Callable[..., Dashboard]]:
    """Start dashboards of the shared broker, or of another; each on a port of its own."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str, broker: str | None = None, **variables: str) -> Dashboard:
        path = tmp_path / f"dashboard-{len(running)}.log"
        listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
        command = command_line("dashboard", "--broker", broker or mosquitto.url, *listen, *options)
        with path.open("wb") as log:
            running.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=environment(**variables), cwd=tmp_path)
            )
        deadline = time.monotonic() + _PATIENCE
        while not (found := re.search(r"The dashboard is on (\S+);", path.read_text())):
            assert running[-1].poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.02)  # between two looks
        return Dashboard(found[1], path.read_text)

    yield start
    for process in running:
        process.terminate()
    for process in running:
        assert process.wait(_PATIENCE) == 0
    assert not (tmp_path / ".nicegui").exists(), "it writes nothing"
