"""One processor's page: its head with the commands, and its parts, each under a tab."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from html import escape
from typing import Final
from urllib.parse import quote

from nicegui import ui

from processor.dashboard import editor, overview, records
from processor.dashboard.fleet import Processor
from processor.dashboard.problems import level, problems
from processor.dashboard.shell import EVERY, Desk, Visitor, button, frame, html, now, page_of
from processor.dashboard.view import Look, View, confirmed
from processor.types import MODEL_SLOT

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


def build(desk: Desk, visitor: Visitor, root: str, tab: str, model: str) -> None:
    """Build the page with a tab open; of one of its models, where it has several."""
    view = View(desk, visitor, root, model)
    looks: list[Look] = []
    with frame(desk, visitor, view.record.id, path=page_of(root)):
        with ui.element("div").classes("head"):
            title = html(escape(view.record.id), tag="h1")
            if not desk.access.read_only:
                _build_commands(view, looks)
        models = html(tag="nav").classes("models")
        wrong = html()
        view.draft.follow(view.record.filter, view.metrics.model, shadow=view.metrics.shadow is not None)
        with ui.tabs().props("no-caps dense align=left") as tabs:
            for name, words in _TABS.items():
                ui.tab(name, words)
        first = tab if tab in _TABS else "overview"
        tabs.on_value_change(lambda event: _remember(root, event.value, model))
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
        record = desk.watcher.fleet.processors.get(root, Processor(root))
        names = record.models
        if record.metrics is not None and model not in (names or [""]):
            right = "" if not names else MODEL_SLOT if MODEL_SLOT in names else names[0]
            ui.navigate.to(_address(root, tabs.value or first, right))
            return
        models.set_content(_links(root, names, model))
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


def _address(root: str, tab: str, model: str) -> str:
    """Return the address of a tab, of one of the models where there are several."""
    return f"{page_of(root)}?tab={tab}" + (f"&model={quote(model)}" if model else "")


def _links(root: str, names: Sequence[str], model: str) -> str:
    """Return links to the pages of the models; nothing where there is one."""
    found = []
    for name in names:
        current = ' aria-current="page"' if name == model else ""
        found.append(f'<a href="{escape(_address(root, "", name))}"{current}>{escape(name)}</a>')
    return " ".join(found)


def _remember(root: str, tab: str, model: str) -> None:
    """Have the address lead to the open tab."""
    ui.run_javascript(f"history.replaceState(null, '', {_address(root, tab, model)!r})")


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
