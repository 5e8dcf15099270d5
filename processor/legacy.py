"""MLADE's desired properties, as a filter and a window size. Pure.

MLADE kept a result when its telemetry lay strictly between two thresholds and its time strictly inside a period, in one
of the minutes 1, 1 + n, 1 + 2n … of the hour, with n the whole part of 1 / DutyCycle. A threshold or a duty cycle that
is not set has MLADE's default. docs/from-mlade.md tells the whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from processor.document import describe
from processor.errors import ConfigurationError, Problem
from processor.schedule_document import moment_text, parse_moment

LOW: Final = "TemperatureThresholdLow"
HIGH: Final = "TemperatureThresholdHigh"
PERIOD: Final = "TimePeriod"
DUTY: Final = "DutyCycle"
LENGTH: Final = "ADInputLength"
FILTER_KEYS: Final = (LOW, HIGH, PERIOD, DUTY)
KEYS: Final = (*FILTER_KEYS, LENGTH)

RULE: Final = "mlade"
"""Name of the only rule."""

_DEFAULTS: Final[Mapping[str, float]] = {LOW: 25, HIGH: 100, DUTY: 0.2}
_LENGTHS: Final = range(12, 8641)
_MINUTES: Final = 60
_TICK: Final = timedelta(microseconds=1)
"""MLADE cut times to microseconds before it compared them."""
_MORE_DIGITS: Final = re.compile(r"(?<=\.[0-9]{6})[0-9]{1,3}")
"""Of a second, beyond microseconds: OPC UA's times have seven."""


def legacy_values(desired: Mapping[str, Any]) -> dict[str, Any]:
    """Return MLADE's keys that are set, at the top level or, where they are not set there, under `desired`."""
    inner = desired.get("desired")
    layers = (inner if isinstance(inner, Mapping) else {}, desired)
    return {key: layer[key] for layer in layers for key in KEYS if layer.get(key) is not None}


def as_filter(given: Mapping[str, Any], field: str, label: str | None) -> dict[str, Any]:
    """Return the filter that keeps what MLADE kept.

    Args:
        given: from `legacy_values`.
        field: that the thresholds apply to.
        label: the predicted label that is wanted; None: any.

    Raises:
        ConfigurationError: with every problem, each with its key.
    """
    problems: list[Problem] = []
    low, high = (_number(given, key, problems) for key in (LOW, HIGH))
    share = _number(given, DUTY, problems)
    where: dict[str, Any] = {"fields": {field: _between(low, high, problems)}}
    if label is not None:
        where["labels"] = [label]
    if share is not None and not 0 < share <= 1:
        problems.append(Problem(DUTY, f"found {describe(share)}, expected more than 0 and at most 1"))
        share = None
    # From one start an hour on it makes no difference; and 1 / DutyCycle may be infinite.
    pause = _MINUTES - 1 if share is None or share * _MINUTES < 1 else int(1 / share)
    document: dict[str, Any] = {}
    if period := _period(given.get(PERIOD), problems):
        document["schedule"] = {"between": [period]}
    cron = {"cron": f"1-59/{min(pause, _MINUTES - 1)} * * * *", "duration": "1m"}
    document["rules"] = [{"name": RULE, "schedule": {"cron": [cron]}, "where": where}]
    if problems:
        raise ConfigurationError(problems)
    return document


def window_size(given: Mapping[str, Any]) -> int | None:
    """Return the wanted readings in a window; None where that is not set.

    Raises:
        ConfigurationError: it is no whole number from 12 to 8640.
    """
    length = given.get(LENGTH)
    if length is None:
        return None
    if isinstance(length, float) and length.is_integer():
        length = int(length)
    if not isinstance(length, int) or isinstance(length, bool) or length not in _LENGTHS:
        message = f"found {describe(given[LENGTH])}, expected a whole number from {_LENGTHS[0]} to {_LENGTHS[-1]}"
        raise ConfigurationError([Problem(LENGTH, message)])
    return length


def _number(given: Mapping[str, Any], key: str, problems: list[Problem]) -> float | None:
    """Return a number, MLADE's default where it is not set, or None where it is none."""
    value = given.get(key, _DEFAULTS[key])
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    problems.append(Problem(key, f"found {describe(value)}, expected a number"))
    return None


def _between(low: float | None, high: float | None, problems: list[Problem]) -> dict[str, float]:
    """Return the closed interval of the numbers strictly between two."""
    if low is None or high is None:
        return {}
    band = {"min": math.nextafter(low, math.inf), "max": math.nextafter(high, -math.inf)}
    if band["min"] > band["max"]:
        problems.append(Problem(LOW, f"no number lies between {LOW} {low:g} and {HIGH} {high:g}"))
    return band


def _period(value: object, problems: list[Problem]) -> dict[str, str]:
    """Return a period for `between` with what lies strictly inside; empty for always."""
    if value is None or value in ("", []):
        return {}
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - start and end
        problems.append(Problem(PERIOD, f"found {describe(value)}, expected [start, end], or [] for always"))
        return {}
    bounds: dict[str, datetime] = {}
    for position, (key, text) in enumerate(zip(("start", "end"), value, strict=True)):
        if text in (None, ""):
            continue
        try:
            bounds[key] = parse_moment(_MORE_DIGITS.sub("", text) if isinstance(text, str) else text)
        except ValueError as error:
            problems.append(Problem(f"{PERIOD}[{position}]", str(error)))
    # Without an offset a time is UTC, as MLADE's were.
    moments = {key: moment if moment.tzinfo else moment.replace(tzinfo=UTC) for key, moment in bounds.items()}
    if "start" in moments:
        moments["start"] += _TICK
    if len(moments) == 2 and moments["start"] >= moments["end"]:  # noqa: PLR2004 - start and end
        problems.append(Problem(PERIOD, f"no time lies between {value[0]} and {value[1]}"))
    return {key: moment_text(moment) for key, moment in moments.items()}
