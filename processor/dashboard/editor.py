"""The filter as a form and as text beside each other; and the bar that sends it and shows the answer."""

from __future__ import annotations

from html import escape
from typing import Final

from nicegui import ui

from processor.dashboard import week
from processor.dashboard.changes import differences
from processor.dashboard.form import Form
from processor.dashboard.shell import button, html, now
from processor.dashboard.view import Look, View

_SHOWN: Final = 4
"""Changes named in the bar."""


def build(view: View) -> Look:
    """Build the part of the page with form and text; return what brings it up to date."""
    draft, may = view.draft, view.visitor.may_change
    with ui.element("div").classes("grid"):
        with ui.element("section").classes("card w7"):
            html("Filter", tag="h2")
            if not may:
                html(view.visitor.why_not, tag="p").classes("lead")
            form = Form(view)
        with ui.element("section").classes("card w5 text"):
            html("The same as text", tag="h2")
            html("YAML, as the processor gets it. Both sides follow each other.", tag="p").classes("lead")
            text = ui.codemirror(draft.text, language="YAML", line_wrapping=True).props(
                'aria-label="The filter as YAML"'
            )
            text.set_enabled(may)
            wrong = html().props("role=status")
        with ui.element("section").classes("card w12"):
            html("A week of it", tag="h2")
            days = html()

    def show(author: object) -> None:
        if author is not text and text.value != draft.text:
            text.set_value(draft.text)
        problems = "".join(f"<li><code>{escape(one.path)}</code> {escape(one.message)}</li>" for one in draft.problems)
        wrong.set_content(f'<ul class="wrong">{problems}</ul>' if problems else '<p class="right">It is a filter.</p>')
        days.set_content(_days(view))

    def typed() -> None:
        if text.value != draft.text:
            draft.write(text.value or "", text)

    text.on_value_change(typed)
    draft.listen(show)
    show(None)
    return form.look


def _days(view: View) -> str:
    found = week.schedules(view.draft.plain or {})
    parts = []
    for name, documents in found.items():
        if documents:
            title = f"<h3>Rule {escape(name)}</h3>" if name else ""
            parts.append(title + week.drawing(documents, now()))
    return "".join(parts) or '<p class="muted">All the time: it has no schedule.</p>'


class Bar:
    """What is not sent yet, and what the processor has said; at the foot of the window."""

    def __init__(self, view: View) -> None:
        """Build it."""
        self._view = view
        self._answer = ""
        self._sending = False
        self._bar = ui.element("div").classes("send-bar").props('role=region aria-label="Changes of the filter"')
        with self._bar:
            self._said = html().props("role=status").classes("said")
            with ui.element("div").classes("buttons"):
                self._discard = button("Discard", self._drop, "flat")
                self._apply = button("Apply", self.send, "primary")
                self._close = button("Close", self._drop, "flat")
        view.draft.listen(lambda _author: self._changed())
        self.look()

    def _changed(self) -> None:
        self._answer = ""
        self.look()

    def look(self) -> None:
        """Show what there is to send, or what was answered."""
        draft = self._view.draft
        self._bar.set_visibility(bool(self._answer) or draft.changed)
        self._apply.set_visibility(draft.changed)
        self._apply.set_enabled(not (draft.problems or self._sending))
        self._discard.set_visibility(draft.changed)
        self._close.set_visibility(not draft.changed)
        self._said.set_content(self._answer or self._what())

    def _what(self) -> str:
        draft = self._view.draft
        moved = ""
        if draft.moved:
            state = self._view.record.filter
            revision = f"Revision {state.revision}" if state else "Another filter"
            moved = f"<p class='warning-text'>{revision} has come into force meanwhile; applying this replaces it.</p>"
        if draft.problems:
            errors = "1 problem" if len(draft.problems) == 1 else f"{len(draft.problems)} problems"
            return f"{moved}<p>Not sent: {errors} to mend first. {escape(str(draft.problems[0]))}</p>"
        found = differences(draft.base, draft.plain or {})
        if not found:
            return f"{moved}<p>Not sent. The text differs, what it says does not.</p>"
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        shown = "".join(f"<li>{escape(one)}</li>" for one in found[:_SHOWN])
        return f"{moved}<p>Not sent yet:</p><ul>{shown}</ul>{more}"

    def _drop(self) -> None:
        state = self._view.record.filter
        self._answer = ""
        if state is not None and self._view.draft.changed:
            self._view.draft.begin(state)
        self.look()

    async def send(self) -> None:
        """Send the draft, and show the answer."""
        self._sending = True
        self._answer = "<p>Sent; waiting for the answer …</p>"
        self.look()
        done, sentence, errors = await self._view.send_filter(self._view.draft.text.encode())
        self._sending = False
        state = self._view.record.filter
        if done and state is not None:
            self._view.draft.begin(state)
        listed = "".join(f"<li>{escape(error)}</li>" for error in errors)
        kind = "well" if done else "broken"
        self._answer = f'<p class="answer {kind}">{escape(sentence)}</p>' + (f"<ul>{listed}</ul>" if listed else "")
        self.look()
