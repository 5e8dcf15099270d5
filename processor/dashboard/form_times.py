"""When to collect, as a form: the filter's schedule, and a rule's own."""

from __future__ import annotations

from typing import Any, Final

from nicegui import ui

from processor.dashboard.form_fields import Fields, Path, get, put, row
from processor.dashboard.shell import html, now
from processor.schedule_document import WEEKDAYS

_DAYS: Final = {"mon": "Mo", "tue": "Tu", "wed": "We", "thu": "Th", "fri": "Fr", "sat": "Sa", "sun": "Su"}


class Times:
    """Builds the schedules of one draft."""

    def __init__(self, fields: Fields) -> None:
        """Use these fields."""
        self._fields = fields
        self._draft = fields.draft

    def build(self, at: Path, otherwise: str) -> None:
        """Build the schedule at a path; `otherwise` is said where it gives no times."""
        schedule = get(self._draft.plain, at)
        schedule = schedule if isinstance(schedule, dict) else {}
        for kind, build in (("weekly", self._weekly), ("cron", self._cron), ("between", self._between)):
            entries = schedule.get(kind)
            for position in range(len(entries) if isinstance(entries, list) else 0):
                with ui.element("div").classes("line"):
                    build((*at, kind, position))
                    self._fields.remover((*at, kind, position), "Remove this time")
        if not any(schedule.get(kind) for kind in ("weekly", "cron", "between")):
            html(otherwise, tag="p").classes("muted")
        if self._fields.editable:
            with ui.element("div").classes("line"):
                self._adder((*at, "weekly"), "Times of the week", {"from": "07:00", "to": "09:30"})
                self._adder((*at, "between"), "Dates", {"start": f"{now():%Y-%m-%d}T00:00:00Z"})
                self._adder((*at, "cron"), "Cron", {"cron": "0 16 * * 1-5", "duration": "2h"})
        with row("Clock"):
            self._fields.text((*at, "timezone"), "Time zone", hint="UTC")
        with row("Only a part"):
            self._fields.number((*at, "duty_cycle", "fraction"), "Share, 0 to 1", hint="0.2")
            self._fields.text((*at, "duty_cycle", "period"), "Of every", hint="10m", width="narrow")

    def _adder(self, path: Path, title: str, entry: dict[str, Any]) -> None:
        def edit(plain: dict[str, Any]) -> None:
            entries = get(plain, path)
            put(plain, path, [*(entries if isinstance(entries, list) else ()), entry])

        self._fields.tool(title, "add", lambda: self._draft.edit(edit, None))

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
