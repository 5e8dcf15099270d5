"""What the parts of a processor's page share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nicegui import ui

from processor.dashboard.draft import Draft
from processor.dashboard.fleet import Processor
from processor.dashboard.shell import Desk, Visitor, button
from processor.dashboard.watching import Unanswered
from processor.printing import errors_of
from processor.remote import who
from processor.told import Metrics
from processor.types import MODEL_SLOT

_Got = TypeVar("_Got")

Look = Callable[[], None]
"""Brings a part of a page up to date."""


@dataclass(frozen=True, slots=True)
class View:
    """One processor's page in one browser.

    Attributes:
        desk: what pages work with.
        visitor: for whom.
        root: the processor's topics' beginning.
        model: which of its models, by its name; empty where it has one.
        draft: the filter that may be written here.
    """

    desk: Desk
    visitor: Visitor
    root: str
    model: str = ""
    draft: Draft = field(default_factory=Draft)

    @property
    def record(self) -> Processor:
        """What is known of the processor now; of this model, where it has several."""
        record = self.desk.watcher.fleet.processors.get(self.root) or Processor(self.root)
        return record.of(self.model) if self.model else record

    @property
    def below(self) -> str:
        """What stands between the processor's root and the topics of the model."""
        return "" if self.model in ("", MODEL_SLOT) else f"models/{self.model}/"

    @property
    def metrics(self) -> Metrics:
        """Its last figures; empty ones where there are none."""
        return self.record.metrics or Metrics()

    async def send_filter(self, payload: bytes) -> tuple[bool, str, list[str]]:
        """Send a filter and wait for the answer.

        Returns:
            Whether it is in force; the answer in a sentence; and what was wrong with it.
        """
        if not self.visitor.may_change:
            return False, "Sign in first: nothing was sent.", []
        try:
            state = await _wait(
                self.desk.watcher.set_filter(self.root, payload, self.visitor.name or who(), self.below)
            )
        except Unanswered as error:
            return False, str(error), []
        if state.status == "applied":
            return True, f"In force as revision {state.revision}.", []
        return False, f"Rejected; revision {state.revision} stays in force.", errors_of(state)

    async def ask(self, command: str) -> tuple[bool, str]:
        """Ask the processor to do something; whether it has, and its answer in a sentence."""
        if not self.visitor.may_change:
            return False, "Sign in first: nothing was sent."
        try:
            answer = await _wait(self.desk.watcher.command(self.root, command))
        except Unanswered as error:
            return False, str(error)
        if answer.get("status") == "ok":
            return True, "Done."
        return False, f"It could not: {answer.get('error', 'it did not say why')}."


def _wait(future: Future[_Got]) -> Awaitable[_Got]:
    return asyncio.wrap_future(future)


async def confirmed(title: str, text: str, act: str, *, content: Callable[[], Any] | None = None) -> bool:
    """Ask whether something is really wanted. The question stands, whatever becomes of the button that asked it."""
    with ui.context.client, ui.dialog() as dialog, ui.card().classes("ask"):
        ui.html(title, sanitize=True, tag="h2")
        ui.label(text)
        if content is not None:
            content()
        with ui.row().classes("buttons"):
            button(act, lambda: dialog.submit(True), "primary").props("autofocus")  # noqa: FBT003 - the answer
            button("Cancel", lambda: dialog.submit(False), "flat")  # noqa: FBT003 - as above
    answer = await dialog
    dialog.delete()
    return bool(answer)
