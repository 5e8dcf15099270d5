"""What every page has: the style, the header, and what is to be said of the broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

from nicegui import app, events, ui

from processor.dashboard.access import Access
from processor.dashboard.watching import Watcher

STATIC: Final = Path(__file__).parent / "static"
COOKIE: Final = "mlade-session"
EVERY: Final = 1.0
"""Seconds between two looks at what is new."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What pages work with.

    Attributes:
        watcher: the broker.
        access: who may change something.
        broker: its address, without a password.
    """

    watcher: Watcher
    access: Access
    broker: str


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever has opened a page."""

    access: Access
    token: str | None

    @property
    def may_change(self) -> bool:
        """Whether they may change something, now."""
        return self.access.may_change(self.token)

    @property
    def name(self) -> str | None:
        """How they call themselves."""
        return self.access.name(self.token)


def now() -> datetime:
    """Return the time in the zone of this machine: the people at the page are mostly near."""
    return datetime.now().astimezone()


def page_of(root: str) -> str:
    """Return the address of a processor's page."""
    return f"/processor/{quote(root)}"


def html(content: str = "", tag: str = "div") -> ui.html:
    """Return an element with content whose parts from outside are escaped."""
    return ui.html(content, sanitize=False, tag=tag)


def button(title: str, act: events.Handler[events.ClickEventArguments], kind: str = "outline") -> ui.button:
    """Return a button: `primary`, `outline` or `flat`; its colours are the style sheet's."""
    return ui.button(title, on_click=act, color=None).props("unelevated no-caps").classes(f"our-button {kind}")


def serve_static() -> None:
    """Serve the style sheet."""
    app.add_static_files("/static", STATIC)


@contextmanager
def frame(desk: Desk, visitor: Visitor, title: str, *, path: str = "/") -> Iterator[None]:
    """Build a page around what follows.

    Args:
        desk: what it works with.
        visitor: for whom.
        title: of the page; empty: of the first.
        path: its address, to come back to after a sign-in.
    """
    ui.page_title(f"{title} · mlade" if title else "mlade")
    ui.add_head_html(f'<link rel="stylesheet" href="/static/style.css?{(STATIC / "style.css").stat().st_mtime_ns}">')
    ui.colors(primary="#0b66b2", negative="#b3261e", positive="#1a7f4b", warning="#9a5b00", dark="#1a2027")
    place = f'<span aria-hidden="true">/</span><span aria-current="page">{escape(title)}</span>' if title else ""
    with ui.element("header").classes("top").props("role=banner"):
        html(f'<a class="home" href="/">mlade</a>{place}', tag="nav")
        html(escape(desk.broker)).classes("broker")
        with ui.element("div").classes("rest"):
            html(_rights(desk, visitor, path))
    banner = html().classes("banner").props("role=status")

    def look() -> None:
        banner.set_content(escape(desk.watcher.trouble or ""))

    look()
    ui.timer(EVERY, look)
    with ui.element("div").classes("page"):
        yield


def _rights(desk: Desk, visitor: Visitor, path: str) -> str:
    if desk.access.read_only:
        why = "Started with --read-only, or open to others without a password"
        return f'<span class="muted" title="{why}">Read only</span>'
    if not desk.access.asks:
        return ""
    if visitor.may_change:
        name = escape(visitor.name or "Signed in")
        return f'<form method="post" action="/sign-out">{name} <button class="plain">Sign out</button></form>'
    return f'<a class="plain" href="/sign-in?next={quote(path)}">Sign in to change things</a>'
