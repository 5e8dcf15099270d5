"""One processor's page: its head with the commands, and its parts, each under a tab."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from html import escape
from typing import Final

from nicegui import ui

from processor.dashboard import editor, overview, records
from processor.dashboard.problems import level, problems
from processor.dashboard.shell import EVERY, Desk, Visitor, button, frame, html, now, page_of
from processor.dashboard.view import Look, View, confirmed

_TABS: Final = {
    "overview": "Overview",
    "filter": "Filter",
    "samples": "Samples",
    "letters": "Dead letters",
    "history": "History",
}
_COMMANDS: Final = {
    "pause": (
        "Pause",
        "It goes on reading, keeps nothing until it is resumed, also after a restart, and still delivers.",
    ),
    "resume": ("Resume", "It keeps again what its filter wants."),
    "flush": ("Deliver now", "Everything in the outbox is handed to the bridges now, unfinished files included."),
    "reload_model": ("Reload the model", "It looks for its model anew."),
}
"""What may be asked of a processor: the button, and what it does."""


def build(desk: Desk, visitor: Visitor, root: str, tab: str) -> None:
    """Build the page with a tab open."""
    view = View(desk, visitor, root)
    looks: list[Look] = []
    with frame(desk, visitor, view.record.id, path=page_of(root)):
        with ui.element("div").classes("head"):
            title = html(escape(view.record.id), tag="h1")
            if not desk.access.read_only:
                _build_commands(view, looks)
        wrong = html()
        view.draft.follow(view.record.filter, view.metrics.model, shadow=view.metrics.shadow is not None)
        with ui.tabs().props("no-caps dense align=left") as tabs:
            for name, words in _TABS.items():
                ui.tab(name, words)
        first = tab if tab in _TABS else "overview"
        tabs.on_value_change(lambda event: _remember(root, event.value))
        bar = editor.Bar(view)
        with ui.tab_panels(tabs, value=first, animated=False).classes("panels"):
            parts: dict[str, Callable[[View], Look]] = {
                "overview": overview.build,
                "filter": editor.build,
                "samples": records.build_samples,
                "letters": records.build_letters,
                "history": partial(records.build_history, send=bar.send),
            }
            for name, part in parts.items():
                with ui.tab_panel(name):
                    looks.append(part(view))

    def look() -> None:
        view.draft.follow(view.record.filter, view.metrics.model, shadow=view.metrics.shadow is not None)
        found = problems(view.record, desk.watcher.until, now())
        title.classes(replace=level(found).name.lower())
        listed = "".join(f'<li class="{one.level.name.lower()}">{escape(one.sentence)}</li>' for one in found)
        wrong.set_content(f'<ul class="problems">{listed}</ul>')
        for update in looks:
            update()
        bar.look()

    look()
    ui.timer(EVERY, look)


def _remember(root: str, tab: str) -> None:
    """Have the address lead to the open tab."""
    ui.run_javascript(f"history.replaceState(null, '', {page_of(root)!r} + '?tab={tab}')")


def _build_commands(view: View, looks: list[Look]) -> None:
    buttons: dict[str, ui.button] = {}

    def act(name: str) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            title, text = _COMMANDS[name]
            if await confirmed(f"{title}?", text, title):
                done, sentence = await view.ask(name)
                said = f"{title}: {sentence}"
                ui.notify(said, type="positive" if done else "negative", timeout=5000 * done, close_button="Close")

        return ask

    with ui.element("div").classes("commands"):
        for name, (title, _) in _COMMANDS.items():
            buttons[name] = button(title, act(name))

    def look() -> None:
        paused, may = view.metrics.paused, view.visitor.may_change
        online = view.record.online is True
        for name, one in buttons.items():
            one.set_visibility(may and name != ("pause" if paused else "resume"))
            one.set_enabled(online)

    looks.append(look)
