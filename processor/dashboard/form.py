"""The rules and the schedule of a filter as a form."""

from __future__ import annotations

from typing import Any, Final

from nicegui import events, ui

from processor.dashboard.estimate import estimate
from processor.dashboard.form_fields import Fields, Path, get, row
from processor.dashboard.form_times import Times
from processor.dashboard.shell import html
from processor.dashboard.view import Look, View

_BY: Final = {"rule": "rule", "label": "label", "stream": "stream"}


class Form:
    """The form. `look` builds it anew when somebody else has changed the draft."""

    def __init__(self, view: View) -> None:
        """Build it."""
        self._view = view
        self._draft = view.draft
        self._fields = Fields(view.draft, editable=view.visitor.may_change)
        self._times = Times(self._fields)
        self._open: set[Path] = {("rules", 0)}
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
            html("When to collect", tag="h3")
            self._times.build(("schedule",), "All the time, as long as no times are given.")
            rules = plain.get("rules")
            rules = rules if isinstance(rules, list) else []
            html("What to keep", tag="h3")
            if len(rules) > 1:
                html("The first rule that takes a window keeps it.", tag="p").classes("muted")
            for position, rule in enumerate(rules):
                if isinstance(rule, dict):
                    self._build_rule(position, rule, len(rules))
            if self._fields.editable:
                self._fields.tool("Add a rule", "add", self._add_rule)

    # --- A rule.

    def _build_rule(self, position: int, rule: dict[str, Any], count: int) -> None:
        path: Path = ("rules", position)
        with (
            self._expansion(path, "").classes("rule").props("switch-toggle-side") as box,
            box.add_slot("header"),
        ):
            with ui.element("div").classes("rule-head"):
                name = ui.label(str(rule.get("name", ""))).classes("rule-name")
                said = ui.label().classes("muted")
            if self._fields.editable:
                with ui.element("div").classes("rule-tools").on("click.stop", lambda: None):
                    if position:
                        self._fields.tool(
                            "Test this rule earlier", "arrow_upward", lambda: self._swap(position), quiet=True
                        )
                    if count > 1:
                        self._fields.remover(path, "Remove this rule")
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
        with row("Rule"):
            fields.text((*path, "name"), "Name")
            fields.number((*path, "priority"), "Priority", step=1, whole=True, hint="0")
        with row("Score"):
            fields.choice((*path, "measure"), "Measure", measures)
            if rule.get("measure") == "probability" or rule.get("label") is not None:
                labels = {label: label for label in draft.labels}
                fields.choice((*path, "label"), "Of", labels or {str(rule.get("label")): str(rule.get("label"))})
            fields.number((*path, "band", "min"), "At least")
            fields.number((*path, "band", "max"), "At most")
            fields.switch((*path, "outside"), "Outside", otherwise=False)
        with row("Only these"):
            fields.several((*path, "where", "labels"), "Labels", draft.labels)
            fields.text((*path, "where", "streams"), "Streams", hint="plant/+/press", split=True)
        self._build_ranges((*path, "where", "fields"))
        with row("The extremes"):
            fields.number((*path, "keep", "share"), "Share, 0 to 1", hint="0.1")
            extremes = {"highest": "highest", "lowest": "lowest"}
            fields.choice((*path, "keep", "of"), "Of scores, the", extremes, otherwise="highest")
            fields.number((*path, "keep", "over"), "Over the last", step=1, whole=True, hint="5000")
        with row("Not alike"):
            fields.presence((*path, "dedup"), "On")
            if isinstance(rule.get("dedup"), dict):
                fields.text((*path, "dedup", "distance"), "Distance", hint="auto", numeric=True, width="narrow")
                fields.number((*path, "dedup", "memory"), "To the last", step=1, whole=True, hint="1000")
        with row("At random"):
            fields.number((*path, "sample"), "Share, 0 to 1", hint="1", step=0.05)
        with row("Pause after"):
            fields.text((*path, "cooldown", "for"), "For", hint="10s", width="narrow")
            fields.choice((*path, "cooldown", "by"), "For each", _BY, otherwise="stream")
        with row("Not too many"):
            fields.number((*path, "limit", "max"), "At most", step=1, whole=True)
            fields.text((*path, "limit", "per"), "In", hint="1h", width="narrow")
            fields.choice((*path, "limit", "by"), "For each", _BY, otherwise="rule")
        with row("Neighbours"):
            fields.number((*path, "context", "before"), "Before", step=1, whole=True, hint="0")
            fields.number((*path, "context", "after"), "After", step=1, whole=True, hint="0")
        self._build_tags((*path, "tags"))
        at: Path = (*path, "schedule")
        if rule.get("schedule"):
            self._open.add(at)
        with self._expansion(at, "Times of its own").classes("own-times"):
            self._times.build(at, "Whenever the filter collects, as long as no times are given.")

    def _build_ranges(self, path: Path) -> None:
        """Build what the newest reading's values have to be."""
        ranges, fields = get(self._draft.plain, path), self._fields
        given = list(ranges) if isinstance(ranges, dict) else []
        free = [field for field in self._draft.fields if field not in given]
        if given or (free and fields.editable):
            with row("Its newest values"):
                for field in given:
                    with ui.element("div").classes("line"):
                        fields.number((*path, field, "min"), f"{field} at least", width="")
                        fields.number((*path, field, "max"), f"{field} at most", width="")
                        fields.remover((*path, field), f"Remove {field}")
                if free and fields.editable:
                    fields.chooser(path, "Add a field", free, {})

    def _build_tags(self, path: Path) -> None:
        """Build what is written on the rule's samples."""
        tags, fields = get(self._draft.plain, path), self._fields
        given = list(tags) if isinstance(tags, dict) else []
        if given or fields.editable:
            with row("Tags"):
                for tag in given:
                    with ui.element("div").classes("line"):
                        fields.text((*path, tag), str(tag))
                        fields.remover((*path, tag), f"Remove the tag {tag}")
                if fields.editable:
                    fields.namer(path, "Add a tag", "")

    # --- Changes of its shape.

    def _expansion(self, path: Path, title: str) -> ui.expansion:
        """Make a part that opens and closes, and is as it was when the form is built anew."""

        def note(event: events.ValueChangeEventArguments[bool]) -> None:
            (self._open.add if event.value else self._open.discard)(path)

        return ui.expansion(title, value=path in self._open).props("dense").on_value_change(note)

    def _add_rule(self) -> None:
        def edit(plain: dict[str, Any]) -> None:
            rules = plain.setdefault("rules", [])
            taken = {rule.get("name") for rule in rules if isinstance(rule, dict)}
            number = next(number for number in range(1, 2000) if f"rule-{number}" not in taken)
            rules.append({"name": f"rule-{number}", "sample": 0.02})
            self._open.add(("rules", len(rules) - 1))

        self._draft.edit(edit, None)

    def _swap(self, position: int) -> None:
        def edit(plain: dict[str, Any]) -> None:
            rules = plain["rules"]
            rules[position - 1], rules[position] = rules[position], rules[position - 1]

        self._draft.edit(edit, None)
