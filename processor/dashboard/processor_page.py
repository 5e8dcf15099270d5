"""One processor's page."""

from __future__ import annotations

from processor.dashboard.shell import Desk, Visitor, frame, html, page_of


def build(desk: Desk, visitor: Visitor, root: str) -> None:
    """Build the page."""
    with frame(desk, visitor, root.rpartition("/")[2], path=page_of(root)):
        html(root, tag="h1")
