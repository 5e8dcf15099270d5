"""Fields of the form: each reads and writes one key of the draft, and shows what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from nicegui import ui

from processor.dashboard.draft import Draft
from processor.dashboard.shell import button, html

Path = tuple[str | int, ...]
"""Where a key stands: `("rules", 0, "band", "min")`."""

Field = ui.input | ui.number | ui.select
_PLAIN: Final = "outlined dense hide-bottom-space"


@contextmanager
def row(title: str) -> Iterator[None]:
    """Put the fields that follow beside each other, under a name."""
    with ui.element("div").classes("row-of").props(f'role=group aria-label="{title}"'):
        html(title).classes("row-name")
        with ui.element("div").classes("line"):
            yield


class Fields:
    """Makes fields of one draft, and knows them all."""

    def __init__(self, draft: Draft, *, editable: bool) -> None:
        """Begin with none."""
        self.draft = draft
        self.editable = editable
        self._fields: dict[str, Field] = {}
        self._sections: set[Path] = set()
        """That may be there and empty."""

    def clear(self) -> None:
        """Forget them: the form is built anew."""
        self._fields.clear()
        self._sections.clear()

    def show_problems(self) -> None:
        """Show each problem at the field of its key, or of the nearest under it or above it."""
        by_field: dict[str, list[str]] = {}
        for problem in self.draft.problems:
            path = next((key for key in self._fields if key.startswith(f"{problem.path}.")), problem.path)
            while path and path not in self._fields:
                path = path[: max(path.rfind("."), path.rfind("["), 0)]
            by_field.setdefault(path, []).append(problem.message)
        for key, element in self._fields.items():
            element.error = "; ".join(by_field[key]) if key in by_field else None

    def text(
        self,
        path: Path,
        title: str,
        *,
        hint: str = "",
        split: bool = False,
        numeric: bool = False,
        width: str = "",
    ) -> None:
        """Make a field for text; `split`: for a list, with commas between its entries; `numeric`: or a number."""
        value = get(self.draft.plain, path)
        shown = ", ".join(map(str, value)) if split and isinstance(value, list) else "" if value is None else str(value)

        def read(typed: str | None) -> object:
            typed = (typed or "").strip()
            if numeric and typed:
                return _number_or(typed)
            if not split:
                return typed or None
            return [entry.strip() for entry in typed.split(",") if entry.strip()] or None

        element = ui.input(title, value=shown, placeholder=hint)
        self._add(path, element, read, width)

    def number(
        self, path: Path, title: str, *, step: float = 0.01, hint: str = "", whole: bool = False, width: str = "narrow"
    ) -> None:
        """Make a field for a number."""

        def read(typed: float | None) -> object:
            return None if typed is None else round(typed) if whole else typed

        value = get(self.draft.plain, path)
        shown = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        self._add(path, ui.number(title, value=shown, step=step, placeholder=hint), read, width)

    def choice(self, path: Path, title: str, options: Mapping[str, str], *, otherwise: str = "") -> None:
        """Make a field for one of several words; `otherwise` stands where the key does not."""
        value = get(self.draft.plain, path)
        shown = value if isinstance(value, str) else otherwise
        element = ui.select({shown: shown, **options}, label=title, value=shown)
        self._add(path, element, lambda chosen: None if chosen == otherwise else chosen, "")

    def several(self, path: Path, title: str, options: Sequence[str]) -> None:
        """Make a field for some of several words."""
        value = get(self.draft.plain, path)
        chosen = [str(one) for one in value] if isinstance(value, list) else []
        known = list(dict.fromkeys([*options, *chosen]))
        element = ui.select(known, label=title, value=chosen, multiple=True).props("use-chips")
        self._add(path, element, lambda now: list(now) or None, "wide")

    def switch(self, path: Path, title: str, *, otherwise: bool) -> None:
        """Make a switch; `otherwise` is what the key's absence means."""
        value = get(self.draft.plain, path)
        element = ui.switch(title, value=value if isinstance(value, bool) else otherwise)
        element.set_enabled(self.editable)
        element.on_value_change(
            lambda event: self.write(path, None if event.value == otherwise and path[-1] != "enabled" else event.value)
        )

    def tool(self, title: str, icon: str, act: Callable[[], None], *, quiet: bool = False) -> None:
        """Make a button that changes the form's shape; a `quiet` one shows its icon alone."""
        made = button("" if quiet else title, act, "flat").props(f"icon={icon} dense")
        if quiet:
            made.props("round size=sm").tooltip(title)
            made.props["aria-label"] = title

    def remover(self, path: Path, title: str) -> None:
        """Make a button that removes what stands at a path, where it may be changed."""
        if self.editable:
            act = lambda: self.draft.edit(lambda plain: remove(plain, path), None)  # noqa: E731 - a name for the line
            self.tool(title, "close", act, quiet=True)

    def chooser(self, path: Path, title: str, keys: Sequence[str], value: object) -> None:
        """Make a field that adds one of some keys to the mapping at a path, with a value to begin with."""
        element = ui.select(list(keys), label=title).props(_PLAIN).classes("field")
        element.on_value_change(lambda event: self._enter((*path, str(event.value)), value))

    def namer(self, path: Path, title: str, value: object) -> None:
        """Make a field that adds a key of any name to the mapping at a path, with a value to begin with."""
        element = ui.input(title).props(_PLAIN).classes("field")
        element.on("change", lambda: self._enter((*path, element.value.strip()), value))

    def _enter(self, path: Path, value: object) -> None:
        if path[-1]:
            self.draft.edit(lambda plain: put(plain, path, value), None)

    def presence(self, path: Path, title: str) -> None:
        """Make a switch for a section that may be empty; with it come and go the fields of the section."""
        self._sections.add(path)
        element = ui.switch(title, value=isinstance(get(self.draft.plain, path), dict))
        element.set_enabled(self.editable)
        element.on_value_change(
            lambda event: self.draft.edit(lambda plain: put(plain, path, {} if event.value else None), None)
        )

    def _add(self, path: Path, element: Field, read: Callable[[Any], object], width: str) -> None:
        element.without_auto_validation()  # its own would take our errors away
        element.props(_PLAIN).classes(f"field {width}")
        element.set_enabled(self.editable)
        element.on_value_change(lambda event: self.write(path, read(event.value)))
        self._fields[name(path)] = element

    def write(self, path: Path, value: object) -> None:
        """Write a key of the draft; None removes it, and what it leaves empty, unless that says something so."""

        def edit(plain: dict[str, Any]) -> None:
            put(plain, path, value)
            if path[:-1] in self._sections and get(plain, path[:-1]) is None:
                put(plain, path[:-1], {})

        self.draft.edit(edit, self)


def _number_or(typed: str) -> object:
    try:
        return float(typed)
    except ValueError:
        return typed


def name(path: Path) -> str:
    """Write a path as problems have it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def get(plain: object, path: Path) -> Any:  # noqa: ANN401 - JSON
    """Return what stands at a path; None where nothing does."""
    for part in path:
        if isinstance(plain, dict):
            plain = plain.get(part)
        elif isinstance(plain, list) and isinstance(part, int) and part < len(plain):
            plain = plain[part]
        else:
            return None
    return plain


def put(plain: dict[str, Any], path: Path, value: object) -> None:
    """Write a key; mappings on the way are made, and removed again when they are left empty."""
    trail: list[tuple[Any, str | int]] = []
    node: Any = plain
    for part, following in pairwise(path):
        wanted = list if isinstance(following, int) else dict
        if isinstance(node, dict) and not isinstance(node.get(part), wanted):
            if value is None:
                return
            node[part] = {}
        trail.append((node, part))
        node = node[part]
    last = path[-1]
    if value is not None:
        node[last] = value
    elif isinstance(node, dict):
        node.pop(last, None)
    for parent, part in reversed(trail):
        if parent[part] == {} and isinstance(parent, dict):
            del parent[part]


def remove(plain: dict[str, Any], path: Path) -> None:
    """Remove an entry of a list or of a mapping, and what it leaves empty."""
    entries = get(plain, path[:-1])
    if isinstance(entries, list) and len(entries) > 1:
        entries.pop(int(path[-1]))
    else:
        put(plain, path[:-1] if isinstance(entries, list) else path, None)
