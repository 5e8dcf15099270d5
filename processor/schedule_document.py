"""What a schedule says: the words of `schedule` in a filter and in a rule, checked."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, get_args
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from processor.document import Flaw, Many, Section, describe, did_you_mean
from processor.types import NS
from processor.units import PositiveDuration

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = get_args(Weekday)

_LONGEST_CRON: Final = 366 * 86_400 * NS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?$"
)
_CLOCK: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_CLOCK_END: Final = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
_YEARS: Final = range(1700, 2201)  # well inside what 64 bits of nanoseconds hold


def parse_moment(value: object) -> datetime:
    """Read a time as a schedule has it; without UTC offset where the text has none.

    Raises:
        ValueError: it is none; the message says what was found and what was expected.
    """
    if isinstance(value, str) and re.fullmatch(_MOMENT, value):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"found {describe(value)}: {error}") from None
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
        if moment.year not in _YEARS:
            raise ValueError(f"found the year {moment.year}, expected 1700 to 2200; leave the key out for no bound")
        return moment
    raise ValueError(f"found {describe(value)}, expected a time such as 2026-11-01T00:00:00Z")


def moment_text(moment: datetime) -> str:
    """Write a time, one with an offset, as a schedule has it, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _clock(pattern: str, example: str) -> Callable[[object], int]:
    def minutes(value: object) -> int:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"found {describe(value)}, expected a time of day {example}, in quotes")
        return int(value[:2]) * 60 + int(value[3:])

    return minutes


def _clock_text(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


Moment = Annotated[
    datetime,
    BeforeValidator(parse_moment),
    PlainSerializer(moment_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _MOMENT}),
]
ClockStart = Annotated[
    int,
    BeforeValidator(_clock(_CLOCK, '"00:00" to "23:59"')),
    PlainSerializer(_clock_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _CLOCK}),
]
ClockEnd = Annotated[
    int,
    BeforeValidator(_clock(_CLOCK_END, '"00:00" to "24:00"')),
    PlainSerializer(_clock_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _CLOCK_END}),
]


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = did_you_mean(name, sorted(zoneinfo.available_timezones()), "").partition("?")
        hint = f"{near[0]}?" if near[1] else ""
        raise ValueError(f"found {describe(name)}, expected an IANA time zone such as Europe/Berlin{hint}") from None
    return name


def _cron(expression: str) -> str:
    if len(expression.split()) != 5:  # noqa: PLR2004
        raise ValueError(f"found {describe(expression)}, expected five fields: minute hour day month weekday")
    try:
        CronSim(expression, _EPOCH)
    except CronSimError as error:
        raise ValueError(f"found {describe(expression)}: {str(error).lower()}") from None
    return expression


def _cron_duration(duration: int) -> int:
    if duration > _LONGEST_CRON:
        raise ValueError("expected a duration of at most 366d; use between or weekly for longer ones")
    return duration


class Period(Section):
    """One span of absolute time, `[start, end)`; an absent end is open."""

    start: Moment | None = Field(default=None, description="included; absent: ever before")
    end: Moment | None = Field(default=None, description="not included; absent: ever after")

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse a period without bounds."""
        if data.get("start") is None and data.get("end") is None:
            yield Flaw((), "a period needs a start, an end, or both")

    def in_zone(self, zone: ZoneInfo) -> Period:
        """Return the same period with bounds that have no UTC offset read as wall clock of `zone`."""
        return self.model_copy(update={key: _in_zone(moment, zone) for key, moment in self})

    @property
    def start_ns(self) -> int | None:
        """Nanoseconds since the Unix epoch, or None when open."""
        return _nanoseconds(self.start)

    @property
    def end_ns(self) -> int | None:
        """Nanoseconds since the Unix epoch, or None when open."""
        return _nanoseconds(self.end)


def _in_zone(moment: datetime | None, zone: ZoneInfo) -> datetime | None:
    # In UTC at once: Python never finds a time inside a repeated hour equal to the same time in another zone.
    return moment.replace(tzinfo=zone).astimezone(UTC) if moment and moment.tzinfo is None else moment


def _nanoseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    since = moment - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


class Weekly(Section):
    """Wall-clock time on some days of the week, `[from, to)`; past midnight when `to` is not after `from`.

    Attributes:
        start: minutes since midnight, 0 to 1439; written `from`.
        end: minutes since midnight, 0 to 1440; written `to`.
    """

    days: Annotated[Many[Weekday], Field(min_length=1)] = Field(
        default=WEEKDAYS, description="on which it starts; absent: every day"
    )
    start: ClockStart = Field(alias="from", description='included, such as "07:00"')
    end: ClockEnd = Field(alias="to", description="not included; not after `from`: on the next day")

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse an empty window."""
        start, end = data.get("from"), data.get("to")
        if isinstance(start, str) and start == end:
            yield Flaw((), f'from and to are both "{start}"; the whole day is from "00:00" to "24:00"')


class Cron(Section):
    """Some time from every moment that a cron expression names in the schedule's time zone."""

    cron: Annotated[str, Field(max_length=200), AfterValidator(_cron)] = Field(
        description="minute hour day month weekday, as Debian's cron reads them, daylight saving included"
    )
    duration: Annotated[PositiveDuration, AfterValidator(_cron_duration)] = Field(
        description="elapsed time, at most 366d; may be longer than the pause between two starts"
    )


class DutyCycle(Section):
    """On for the first `fraction` of every `period`, counted from the Unix epoch."""

    period: PositiveDuration = Field(description="of one on and off phase")
    fraction: Annotated[float, Field(ge=0, le=1)] = Field(description="of the period that is on, 0 to 1")


class ScheduleDocument(Section):
    """When to collect: any of `between`, `weekly`, `cron` (all of time when none is given), and the duty cycle.

    A time in `between` without UTC offset is wall clock in `timezone`: of an hour that happens twice the first is
    meant, and one that never happens is read with the offset from before the change.
    """

    timezone: Annotated[str, AfterValidator(_timezone)] = Field(default="UTC", description="IANA: Europe/Berlin")
    between: Many[Period] = Field(default=(), description="spans of absolute time")
    weekly: Many[Weekly] = Field(default=(), description="wall-clock time on days of the week")
    cron: Annotated[Many[Cron], Field(max_length=50)] = Field(default=(), description="time from a cron expression on")
    duty_cycle: DutyCycle | None = Field(default=None, description="only a fraction of the time, evenly spread")

    @field_validator("between")
    @classmethod
    def _read_in_timezone(cls, between: tuple[Period, ...], info: ValidationInfo) -> tuple[Period, ...]:
        zone = ZoneInfo(info.data.get("timezone", "UTC"))
        return tuple(period.in_zone(zone) for period in between)

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse periods that end before they start."""
        try:
            zone = ZoneInfo(_timezone(data.get("timezone", "UTC")))
        except (ValueError, TypeError):
            zone = ZoneInfo("UTC")  # reported where it stands
        periods = data.get("between")
        for index, period in enumerate(periods if isinstance(periods, list) else ()):
            try:
                start, end = (_nanoseconds(_in_zone(parse_moment(period[key]), zone)) for key in ("start", "end"))
            except (ValueError, TypeError, KeyError):
                continue  # open, or reported where it stands
            if start is not None and end is not None and start >= end:
                yield Flaw(("between", index), f"start {period['start']} is not before end {period['end']}")
