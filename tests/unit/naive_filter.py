"""The contract's section 4, read aloud window by window: what the real filter is compared with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from processor import events
from processor.types import NS, Floats, Reason, StreamName

START = 1_795_341_600 * NS
"""2026-11-22T10:00:00Z, a Sunday."""
PART = 0.25
"""Of the windows that the shadow judges."""
FIELDS: Mapping[str, Sequence[str]] = {"imu": ["ax", "ay"], "pump": ["ay", "az"]}
NAMES = [
    StreamName(source, key)
    for source, key in (("imu", "a/b"), ("imu", "a"), ("pump", "a/b"), ("pump", "$x/b"), ("imu", ""))
]


class Case(NamedTuple):
    """One window and what the model says of it."""

    name: StreamName
    time: int
    newest: tuple[float, float]
    probabilities: tuple[float, ...] | None
    value: float | None
    disagreement: float | None = None
    """How far the shadow's answer lies from the model's; None where the shadow did not judge the window."""

    def readings(self) -> list[tuple[float, float]]:
        """Return the window's values."""
        return [(1e6, -1e6), self.newest]


class Verdict(NamedTuple):
    """What became of a window."""

    reason: Reason
    rule: int
    score: float | None
    probability: float


def is_active(schedule: Mapping[str, Any] | None, time: int) -> bool:
    """Tell whether `between`, `weekly` or the duty cycle make a time active; everything in UTC."""
    if schedule is None:
        return True
    moment = datetime.fromtimestamp(time // NS, UTC)
    spans = [
        datetime.fromisoformat(span["start"]) <= moment < datetime.fromisoformat(span["end"])
        for span in schedule.get("between", [])
    ]
    for week in schedule.get("weekly", []):
        is_day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][moment.weekday()] in week["days"]
        spans.append(is_day and week["from"] <= f"{moment:%H:%M}" < week["to"])
    duty = schedule.get("duty_cycle")
    on = True
    if duty is not None:
        period = int(duty["period"][:-1]) * NS
        on = time % period < Fraction(str(duty["fraction"])) * period
    return (not spans or any(spans)) and on


def matches(pattern: Sequence[str], levels: Sequence[str], *, first: bool = True) -> bool:
    """Match MQTT topic levels, one after another."""
    if first and levels[0].startswith("$") and pattern[0] in ("+", "#"):
        return False
    if not pattern:
        return not levels
    if pattern[0] == "#":
        return True
    if not levels:
        return False
    return pattern[0] in ("+", levels[0]) and matches(pattern[1:], levels[1:], first=False)


def within(number: float, limits: Mapping[str, float]) -> bool:
    """Tell whether a number lies in a closed interval; what is no number lies in none."""
    return limits.get("min", -math.inf) <= number <= limits.get("max", math.inf)


def score_of(rule: Mapping[str, Any], case: Case, labels: Sequence[str]) -> float | None:
    """Return a rule's score; None where it has no measure."""
    measure = rule.get("measure")
    if measure is None:
        return None
    if measure in ("score", "value"):
        return case.value
    if measure == "disagreement":
        return math.nan if case.disagreement is None else case.disagreement
    p = case.probabilities
    if p is None or any(map(math.isnan, p)):
        return math.nan
    ordered = sorted(p, reverse=True)
    return {
        "confidence": ordered[0],
        "margin": ordered[0] - ordered[1],
        "entropy": -sum(x * math.log(x) for x in p if x) / math.log(len(p)),
        "probability": p[labels.index(rule["label"])] if "label" in rule else math.nan,
    }[measure]


def stage(rule: Mapping[str, Any], case: Case, labels: Sequence[str]) -> Reason:
    """Return where a rule stops before its sampling, or ACCEPTED."""
    if not is_active(rule.get("schedule"), case.time):
        return Reason.SCHEDULE
    where = rule.get("where", {})
    if where.get("labels"):
        p = case.probabilities
        if p is None or any(map(math.isnan, p)) or labels[p.index(max(p))] not in where["labels"]:
            return Reason.WHERE
    if where.get("streams"):
        levels = case.name.key.split("/")
        if not any(
            matches(pattern.split("/"), levels) or pattern == "a/#" == f"{case.name.key}/#"
            for pattern in where["streams"]
        ):
            return Reason.WHERE
    for field, limits in where.get("fields", {}).items():
        names = FIELDS[case.name.source]
        if field not in names or not within(case.newest[names.index(field)], limits):
            return Reason.WHERE
    return Reason.ACCEPTED if in_band(rule, score_of(rule, case, labels)) else Reason.BAND


def in_band(rule: Mapping[str, Any], score: float | None) -> bool:
    """Tell whether a score is what a rule wants; where the shadow did not judge the window, there is none."""
    if score is None:
        return True
    if "band" not in rule:
        return not (rule["measure"] == "disagreement" and math.isnan(score))
    return not math.isnan(score) and within(score, rule["band"]) != rule.get("outside", False)


def key_of(by: str, case: Case, labels: Sequence[str]) -> object:
    """Return what a cooldown or limit counts a window under."""
    if by == "stream":
        return case.name
    if by == "label":
        p = case.probabilities
        return None if p is None or any(map(math.isnan, p)) else labels[p.index(max(p))]
    return None


class Counted:
    """A cooldown or a limit: times of samples, and a clock, for each key."""

    def __init__(self, most: int, per: str, by: str) -> None:
        """Allow `most` in any `per`, written as in a filter, in whole seconds."""
        self._most = most
        self._per = int(per[:-1]) * NS
        self.by = by
        self._clock: dict[object, int] = {}
        self._times: dict[object, list[int]] = defaultdict(list)

    def accepts(self, key: object, time: int, *, reached: bool) -> bool:
        """Tell whether there is room at a time; if the window has come this far, the clock goes on."""
        clock = max(time, self._clock.get(key, time))
        if reached:
            self._clock[key] = clock
        return sum(clock - self._per < each for each in self._times[key]) < self._most

    def spend(self, key: object) -> None:
        """Count a sample."""
        self._times[key].append(self._clock[key])


class Band:
    """An adaptive band, as DESIGN.md has it."""

    def __init__(self, share: float, of: str = "highest", over: int = 5000) -> None:
        """Begin with no scores."""
        self._share, self._over = share, over
        self._sign = 1 if of == "highest" else -1
        self._width = max(200 * share, 2)
        self._credit = self._width / 2
        self._scores: list[float] = []
        self._kept: list[bool] = []

    def keeps(self, score: float, uniform: float) -> bool:
        """Decide on the next score."""
        if math.isnan(score):
            return False
        self._scores = [*self._scores, self._sign * score][-self._over :]
        more = sum(each > self._sign * score for each in self._scores)
        equal = sum(each == self._sign * score for each in self._scores)
        rank = (more + uniform * equal) / len(self._scores)
        self._credit += self._share
        steepness = max(8, 1.1 * math.log2(1 / self._share))
        threshold = self._share * 2 ** (steepness * (self._credit - self._width / 2) / self._width)
        room = sum(self._kept[-199:]) < max(1, math.floor(600 * self._share))
        keeps = self._credit >= 1 and rank < threshold and room
        self._credit -= keeps
        self._kept.append(keeps)
        return keeps


class Near:
    """Compares one window at a time with a list of samples."""

    def __init__(self, distance: float, memory: int) -> None:
        """Begin with no samples."""
        self._distance, self._memory = distance, memory
        self._samples: list[Floats] = []
        self._seen = 0
        self._due = 1
        self._origin: Floats = np.zeros(1)
        self._weight: float = 0
        self._sums: Floats = np.zeros((2, 1))
        self._deviations: Floats = np.ones(1)

    def is_near(self, window: Floats) -> bool:
        """Decide on the next window, (size, C)."""
        if not self._seen:
            self._origin = window.mean(axis=0)
        self._seen += 1
        self._weight += len(window)
        readings = window - self._origin
        self._sums = self._sums + np.array([readings.sum(axis=0), (readings**2).sum(axis=0)])
        if self._seen == self._due:
            mean, square = self._sums / self._weight
            variance = square - mean**2
            self._deviations = np.where(variance > 1e-12 * mean**2, np.abs(variance), 1.0) ** 0.5
            self._due += min(max(1, self._seen // 4), 4096)
            if self._due // 16_384 > self._seen // 16_384:  # what was before counts half from now on
                self._sums, self._weight = self._sums / 2, self._weight / 2
        apart = [np.sqrt(np.mean(((window - sample) / self._deviations) ** 2)) for sample in self._samples]
        return bool(min(apart, default=np.inf) < self._distance)

    def keep(self, window: Floats) -> None:
        """Take a sample."""
        self._samples = [*self._samples, window][-self._memory :]


class Naive:
    """Decides on one window after another as section 4 says."""

    def __init__(self, filter_: Mapping[str, Any], labels: Sequence[str]) -> None:
        """Begin with nothing kept."""
        self._filter = filter_
        self._labels = labels
        self._counted: dict[tuple[int, Reason], Counted] = {}
        self._bands = {index: Band(**rule["keep"]) for index, rule in enumerate(filter_["rules"]) if "keep" in rule}
        self._near = {index: Near(**rule["dedup"]) for index, rule in enumerate(filter_["rules"]) if "dedup" in rule}
        for index, rule in enumerate(filter_["rules"]):
            if cooldown := rule.get("cooldown"):
                counted = Counted(1, cooldown["for"], cooldown.get("by", "stream"))
                self._counted[index, Reason.COOLDOWN] = counted
            if limit := rule.get("limit"):
                counted = Counted(limit["max"], limit["per"], limit.get("by", "rule"))
                self._counted[index, Reason.LIMIT] = counted

    def judge(self, case: Case, identifier: str, *, paused: bool = False) -> Verdict:
        """Decide on the next window."""
        if paused or not self._filter.get("enabled", True):
            return Verdict(Reason.DISABLED, -1, None, 0)
        if not is_active(self._filter.get("schedule"), case.time):
            return Verdict(Reason.SCHEDULE, -1, None, 0)
        furthest, first = Reason.NO_RULE, -1
        missed = {False: 1.0, True: 1.0}  # by whether the rule asks the shadow
        for index, rule in enumerate(self._filter["rules"]):
            came = self._early(index, rule, case, identifier)
            if came is Reason.ACCEPTED:
                came, would = self._late(index, rule, case, identifier)
                missed[rule.get("measure") == "disagreement"] *= 1 - rule.get("sample", 1.0) if would else 1
            furthest = max(furthest, came)
            if came is Reason.ACCEPTED and first < 0:
                first = index
        if first < 0:
            return Verdict(furthest, -1, None, 0)
        if first in self._near:
            self._near[first].keep(np.array(case.readings()))
        for (index, _), counted in self._counted.items():
            if index == first:
                counted.spend(key_of(counted.by, case, self._labels))
        chance = 1 - missed[False] * missed[True] if missed[False] < 1 else PART * (1 - missed[True])
        return Verdict(Reason.ACCEPTED, first, score_of(self._filter["rules"][first], case, self._labels), chance)

    def _early(self, index: int, rule: Mapping[str, Any], case: Case, identifier: str) -> Reason:
        """Return where a rule stops before what depends on the windows kept, or ACCEPTED."""
        came = stage(rule, case, self._labels)
        if came is Reason.ACCEPTED and index in self._bands:
            uniform = events.uniform(identifier, f"{rule['name']}/keep")
            if not self._bands[index].keeps(score_of(rule, case, self._labels) or 0, uniform):
                return Reason.KEEP
        return came

    def _late(self, index: int, rule: Mapping[str, Any], case: Case, identifier: str) -> tuple[Reason, bool]:
        """Return where a rule stops from its dedup on; and whether all but the sampling would accept."""
        if index in self._near and self._near[index].is_near(np.array(case.readings())):
            return Reason.DEDUP, False
        sample = rule.get("sample", 1.0)
        sampled = sample == 1 or events.uniform(identifier, rule["name"]) < sample
        came, would = (Reason.ACCEPTED if sampled else Reason.SAMPLED_OUT), True
        for reason in (Reason.COOLDOWN, Reason.LIMIT):
            counted = self._counted.get((index, reason))
            if counted is None:
                continue
            reached = came is Reason.ACCEPTED
            if not counted.accepts(key_of(counted.by, case, self._labels), case.time, reached=reached):
                would = False
                if reached:
                    came = reason
        return came, would
