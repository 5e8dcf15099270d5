"""A browser that stays open, and a dashboard to look at with it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.chromium import ARGUMENTS, find_chromium
from tests.commands import command_line, environment
from tests.mosquitto import Mosquitto

_PATIENCE = 30.0


class Dashboard(NamedTuple):
    """A running `mlade dashboard`.

    Attributes:
        url: its address, with a slash at the end.
        log: what it has printed.
    """

    url: str
    log: Callable[[], str]


OpenPage = Callable[..., Page]
"""Opens an address; further arguments are the browser context's."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    expect.set_options(timeout=_PATIENCE * 1000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open pages; at the end none may have complained, or asked anybody but its own host for anything."""
    complaints: list[str] = []
    contexts = []

    def opened(url: str, **options: Any) -> Page:  # noqa: ANN401 - Playwright's
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(_PATIENCE * 1000)
        own = re.match(r"https?://[^/]+/", url)
        assert own
        page.on("console", lambda said: complaints.append(said.text) if _is_complaint(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if _is_foreign(asked.url, own[0]) else None)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _is_complaint(said: ConsoleMessage) -> bool:
    return said.type in ("error", "warning") and "401 (Unauthorized)" not in said.text  # a password was wrong


def _is_foreign(url: str, own: str) -> bool:
    return not url.startswith((own, own.replace("http", "ws", 1), "data:", "blob:"))


class Dashboards:
    """Starts dashboards, each on a port of its own."""

    def __init__(self, broker: str, directory: Path) -> None:
        self._broker = broker
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def __call__(self, *options: str, broker: str | None = None, **variables: str) -> Dashboard:
        """Start one and return when it serves.

        Args:
            options: of the command line.
            broker: its URL; absent: the shared one's.
            variables: of its environment.
        """
        path = self._directory / f"dashboard-{len(self._running)}.log"
        command = command_line("dashboard", "--broker", broker or self._broker, "--listen", "127.0.0.1:0", *options)
        with path.open("wb") as log:
            self._running.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=environment(**variables), cwd=self._directory)
            )
        deadline = time.monotonic() + _PATIENCE
        while not (found := re.search(r"The dashboard is on (\S+);", path.read_text())):
            assert self._running[-1].poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.02)  # between two looks
        return Dashboard(found[1], path.read_text)

    def stop(self) -> None:
        """End them all as a service manager does."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            assert process.wait(_PATIENCE) == 0
        assert not (self._directory / ".nicegui").exists(), "it writes nothing"


@pytest.fixture
def start_dashboard(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Dashboards]:
    """Start dashboards of the shared broker, or of another."""
    dashboards = Dashboards(mosquitto.url, tmp_path)
    yield dashboards
    dashboards.stop()


@pytest.fixture(scope="module")
def dashboard(mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Start one for all tests of a module."""
    dashboards = Dashboards(mosquitto.url, tmp_path_factory.mktemp("dashboard"))
    yield dashboards()
    dashboards.stop()
