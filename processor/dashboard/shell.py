"""What every page has: the style, the header, and what is to be said of the broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from nicegui import Client, app, events, ui

from processor.dashboard.access import Access
from processor.dashboard.watching import Watcher

log = logging.getLogger(__name__)

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
    def why_not(self) -> str:
        """Why they may not, and what would let them, in a sentence; empty where they may."""
        if self.may_change:
            return ""
        if self.access.read_only:
            return (
                "Only shown: this dashboard was started to read. Started with a password, it lets those change "
                "something who know it."
            )
        return "Only shown: sign in to change something."

    @property
    def name(self) -> str | None:
        """How they call themselves."""
        return self.access.name(self.token)


_ZONES: Final[WeakKeyDictionary[Client, ZoneInfo]] = WeakKeyDictionary()
"""Of those who look at a page; used by the server's thread."""


def now() -> datetime:
    """Return the time in the zone of whoever looks at this page; in this machine's until their browser has told it."""
    return datetime.now().astimezone(_ZONES.get(ui.context.client))


async def _ask_for_zone(client: Client) -> None:
    try:
        _ZONES[client] = ZoneInfo(await client.run_javascript("Intl.DateTimeFormat().resolvedOptions().timeZone"))
    except (OSError, TypeError, ValueError, KeyError) as error:  # it is gone, or says what is not known here
        log.info("A browser has told no time zone (%s); it is shown this machine's times.", error or "no answer")


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
    ui.context.client.on_connect(_ask_for_zone)
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
