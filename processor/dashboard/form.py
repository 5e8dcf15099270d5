"""The rules and the schedule of a filter as a form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from nicegui import ui

from processor.dashboard.estimate import estimate
from processor.dashboard.form_fields import Fields, Path, get
from processor.dashboard.shell import button, html, now
from processor.dashboard.view import Look, View
from processor.schedule_document import WEEKDAYS

_BY: Final = {"rule": "rule", "label": "label", "stream": "stream"}
_DAYS: Final = {"mon": "Mo", "tue": "Tu", "wed": "We", "thu": "Th", "fri": "Fr", "sat": "Sa", "sun": "Su"}
_HERE: Final = frozenset(
    {"name", "measure", "label", "band", "outside", "where", "sample", "limit", "cooldown", "keep", "dedup", "context"}
    | {"priority"}
)
"""Keys of a rule that the form has; the text has all."""


@contextmanager
def _row(title: str) -> Iterator[None]:
    """Put the fields that follow beside each other, under a name."""
    with ui.element("div").classes("row-of").props(f'role=group aria-label="{title}"'):
        html(title).classes("row-name")
        with ui.element("div").classes("line"):
            yield


class Form:
    """The form. `look` builds it anew when somebody else has changed the draft."""

    def __init__(self, view: View) -> None:
        """Build it."""
        self._view = view
        self._draft = view.draft
        self._fields = Fields(view.draft, editable=view.visitor.may_change)
        self._open: set[int] = {0}
        self._estimates: list[Look] = []
        self._box = ui.element("div").classes("form")
        self._draft.listen(self._changed)
        self._build()

    def look(self) -> None:
        """Say again what the rules would keep."""
        for update in self._estimates:
            update()

    def _changed(self, author: object) -> None:
        if author is not self._fields:
            self._build()
        self._fields.show_problems()
        self.look()

    def _build(self) -> None:
        self._fields.clear()
        self._estimates.clear()
        self._box.clear()
        plain = self._draft.plain
        with self._box:
            if plain is None:
                html("The text beside it is no filter yet; the form comes back when it is.", tag="p").classes("muted")
                return
            self._fields.switch(("enabled",), "Collect", otherwise=True)
            self._build_schedule(plain)
            rules = plain.get("rules")
            rules = rules if isinstance(rules, list) else []
            html("What to keep", tag="h3")
            if len(rules) > 1:
                html("The first rule that takes a window keeps it.", tag="p").classes("muted")
            for position, rule in enumerate(rules):
                if isinstance(rule, dict):
                    self._build_rule(position, rule, len(rules))
            if self._fields.editable:
                self._button("Add a rule", "add", self._add_rule)

    def _button(self, title: str, icon: str, act: Callable[[], None], *, quiet: bool = False) -> None:
        made = button("" if quiet else title, act, "flat").props(f"icon={icon} dense")
        if quiet:
            made.props(f'round size=sm aria-label="{title}"').tooltip(title)

    # --- When.

    def _build_schedule(self, plain: dict[str, Any]) -> None:
        html("When to collect", tag="h3")
        schedule = plain.get("schedule")
        schedule = schedule if isinstance(schedule, dict) else {}
        for kind, build in (("weekly", self._weekly), ("cron", self._cron), ("between", self._between)):
            entries = schedule.get(kind)
            for position in range(len(entries) if isinstance(entries, list) else 0):
                with ui.element("div").classes("line"):
                    path: Path = ("schedule", kind, position)
                    build(path)
                    if self._fields.editable:
                        self._button("Remove this time", "close", lambda path=path: self._remove(path), quiet=True)  # type: ignore[misc]
        if not any(schedule.get(kind) for kind in ("weekly", "cron", "between")):
            html("All the time, as long as no times are given.", tag="p").classes("muted")
        if self._fields.editable:
            with ui.element("div").classes("line"):
                self._button("Times of the week", "add", lambda: self._add("weekly", {"from": "07:00", "to": "09:30"}))
                self._button("Dates", "add", lambda: self._add("between", {"start": f"{now():%Y-%m-%d}T00:00:00Z"}))
                self._button("Cron", "add", lambda: self._add("cron", {"cron": "0 16 * * 1-5", "duration": "2h"}))
        with _row("Only a part"):
            self._fields.number(("schedule", "duty_cycle", "fraction"), "Part, 0 to 1", hint="0.2")
            self._fields.text(("schedule", "duty_cycle", "period"), "Of every", hint="10m", width="narrow")
            self._fields.text(("schedule", "timezone"), "Time zone", hint="UTC")

    def _weekly(self, path: Path) -> None:
        days = get(self._draft.plain, (*path, "days"))
        chosen = [day for day in days if day in WEEKDAYS] if isinstance(days, list) else list(WEEKDAYS)
        with ui.element("div").classes("days").props('role=group aria-label="Days"'):
            for day, short in _DAYS.items():
                box = ui.checkbox(short, value=day in chosen).props(f"dense aria-label={day}")
                box.set_enabled(self._fields.editable)
                box.on_value_change(lambda event, day=day: self._day(path, day, on=event.value))
        self._fields.text((*path, "from"), "From", width="narrow")
        self._fields.text((*path, "to"), "To", width="narrow")

    def _day(self, path: Path, day: str, *, on: bool) -> None:
        days = get(self._draft.plain, (*path, "days"))
        chosen = set(days if isinstance(days, list) else WEEKDAYS)
        chosen = chosen | {day} if on else chosen - {day}
        self._fields.write((*path, "days"), [one for one in WEEKDAYS if one in chosen])

    def _cron(self, path: Path) -> None:
        self._fields.text((*path, "cron"), "Minute hour day month weekday")
        self._fields.text((*path, "duration"), "For", width="narrow")

    def _between(self, path: Path) -> None:
        self._fields.text((*path, "start"), "From", hint="2026-11-01T00:00:00Z")
        self._fields.text((*path, "end"), "Until", hint="2026-12-01T00:00:00Z")

    # --- What.

    def _build_rule(self, position: int, rule: dict[str, Any], count: int) -> None:
        path: Path = ("rules", position)
        with (
            ui.expansion(value=position in self._open)
            .classes("rule")
            .props("dense switch-toggle-side")
            .on_value_change(lambda event: self._note_open(position, is_open=event.value)) as box,
            box.add_slot("header"),
        ):
            with ui.element("div").classes("rule-head"):
                name = ui.label(str(rule.get("name", ""))).classes("rule-name")
                said = ui.label().classes("muted")
            if self._fields.editable:
                with ui.element("div").classes("rule-tools").on("click.stop", lambda: None):
                    if position:
                        self._button("Test this rule earlier", "arrow_upward", lambda: self._swap(position), quiet=True)
                    if count > 1:
                        self._button("Remove this rule", "close", lambda: self._remove(path), quiet=True)
        with box:
            self._build_conditions(path, rule)

        def update() -> None:
            written = get(self._draft.plain, path)
            name.set_text(str((written or {}).get("name", "")))
            said.set_text(self._would_keep(written))

        update()
        self._estimates.append(update)

    def _would_keep(self, rule: object) -> str:
        for scores in self._view.metrics.last_hour.scores:
            if isinstance(rule, dict) and (scores.rule, scores.measure, scores.label) == (
                rule.get("name"),
                rule.get("measure"),
                rule.get("label"),
            ):
                return estimate(scores, rule).sentence()
        return ""

    def _build_conditions(self, path: Path, rule: dict[str, Any]) -> None:
        fields, draft = self._fields, self._draft
        measures = {"": "nothing", **{measure: measure for measure in draft.measures}}
        with _row("Rule"):
            fields.text((*path, "name"), "Name")
            fields.number((*path, "priority"), "Priority", step=1, whole=True, hint="0")
        with _row("Score"):
            fields.choice((*path, "measure"), "Measure", measures)
            if rule.get("measure") == "probability" or rule.get("label") is not None:
                labels = {label: label for label in draft.labels}
                fields.choice((*path, "label"), "Of", labels or {str(rule.get("label")): str(rule.get("label"))})
            fields.number((*path, "band", "min"), "At least")
            fields.number((*path, "band", "max"), "At most")
            fields.switch((*path, "outside"), "Outside", otherwise=False)
        with _row("Only these"):
            fields.several((*path, "where", "labels"), "Labels", draft.labels)
            fields.text((*path, "where", "streams"), "Streams", hint="plant/+/press", split=True)
        with _row("The extremes"):
            fields.number((*path, "keep", "share"), "Part", hint="0.1")
            extremes = {"highest": "highest", "lowest": "lowest"}
            fields.choice((*path, "keep", "of"), "Of scores, the", extremes, otherwise="highest")
            fields.number((*path, "keep", "over"), "Over the last", step=1, whole=True, hint="5000")
        with _row("Not alike"):
            fields.number((*path, "dedup", "memory"), "To the last", step=1, whole=True, hint="1000")
            fields.number((*path, "sample"), "Then draw this part", hint="1", step=0.05, width="")
        with _row("Not too many"):
            fields.number((*path, "limit", "max"), "At most", step=1, whole=True)
            fields.text((*path, "limit", "per"), "In", hint="1h", width="narrow")
            fields.choice((*path, "limit", "by"), "For each", _BY, otherwise="rule")
        with _row("Pause after"):
            fields.text((*path, "cooldown", "for"), "For", hint="10s", width="narrow")
            fields.choice((*path, "cooldown", "by"), "For each", _BY, otherwise="stream")
        with _row("Neighbours"):
            fields.number((*path, "context", "before"), "Before", step=1, whole=True, hint="0")
            fields.number((*path, "context", "after"), "After", step=1, whole=True, hint="0")
        others = [key for key in rule if key not in _HERE]
        if isinstance(rule.get("where"), dict) and rule["where"].get("fields"):
            others.append("where.fields")
        if others:
            html(f"Only in the text: {', '.join(sorted(others))}.", tag="p").classes("muted")

    # --- Changes of its shape.

    def _note_open(self, position: int, *, is_open: bool) -> None:
        (self._open.add if is_open else self._open.discard)(position)

    def _reshape(self, edit: Callable[[dict[str, Any]], None]) -> None:
        self._draft.edit(edit, None)

    def _add(self, kind: str, entry: dict[str, Any]) -> None:
        def edit(plain: dict[str, Any]) -> None:
            if not isinstance(plain.get("schedule"), dict):
                plain["schedule"] = {}
            plain["schedule"].setdefault(kind, []).append(entry)

        self._reshape(edit)

    def _add_rule(self) -> None:
        def edit(plain: dict[str, Any]) -> None:
            rules = plain.setdefault("rules", [])
            taken = {rule.get("name") for rule in rules if isinstance(rule, dict)}
            number = next(number for number in range(1, 2000) if f"rule-{number}" not in taken)
            rules.append({"name": f"rule-{number}", "sample": 0.02})
            self._open.add(len(rules) - 1)

        self._reshape(edit)

    def _swap(self, position: int) -> None:
        def edit(plain: dict[str, Any]) -> None:
            rules = plain["rules"]
            rules[position - 1], rules[position] = rules[position], rules[position - 1]

        self._reshape(edit)

    def _remove(self, path: Path) -> None:
        def edit(plain: dict[str, Any]) -> None:
            entries = get(plain, path[:-1])
            del entries[path[-1]]
            if not entries and path[0] == "schedule":
                del plain["schedule"][path[1]]
                if not plain["schedule"]:
                    del plain["schedule"]

        self._reshape(edit)
