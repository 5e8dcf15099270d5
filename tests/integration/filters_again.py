"""Which windows of a recording a filter keeps, computed from the contract alone, a reading at a time.

Nothing here imports `processor`: JSON, windows, ids, measures, the schedule and every condition but `dedup` are written
again in plain Python, in the contract's order. Slow, and meant to be read. Where the contract is silent: a cooldown is
by stream, ties of `keep` are broken by the uniform number of `<rule>/keep`, so that `sample` still chooses freely.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import onnxruntime
from cronsim import CronSim

NS = 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"s": 1, "ms": 10**-3, "m": 60, "h": 3600, "d": 86400}
REASONS = ("schedule", "where", "band", "keep", "sampled_out", "cooldown", "limit")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Json = Any
"""What json.loads returns."""


def duration(text: str) -> int:
    """Return nanoseconds of such as `10s`."""
    unit = text.lstrip("0123456789.")
    return round(Fraction(text.removesuffix(unit)) * Fraction(str(UNITS[unit])) * NS)


def moment(text: str, zone: tzinfo = UTC) -> int:
    """Return nanoseconds since the epoch of an ISO 8601 time; one without an offset is of `zone`."""
    parsed = datetime.fromisoformat(text)
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)
    return (aware - EPOCH) // timedelta(microseconds=1) * 1000


def from_seconds(seconds: float) -> int:
    """Return nanoseconds of floating-point seconds, rounded to the microsecond."""
    return round(Fraction(seconds) * 10**6) * 1000


# --- windows -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """The last `size` readings of a stream, and what the model says of them."""

    id: str
    source: str
    stream: str
    times: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    fields: tuple[str, ...]
    place: int
    """How manyth of its stream, gaps not counted."""
    chapter: int
    """How many gaps its stream had before it."""
    output: tuple[float, ...]
    shadow: tuple[float, ...] | None = None
    """What the shadow says of it; None where it does not judge it."""

    @property
    def time(self) -> int:
        """That of the newest reading."""
        return self.times[-1]


@dataclass(slots=True)
class Stream:
    """Readings since the last gap."""

    times: list[int] = field(default_factory=list)
    values: list[tuple[float, ...]] = field(default_factory=list)
    windows: int = 0
    chapter: int = 0


def matches(pattern: str, topic: str) -> bool:
    """Return whether an MQTT topic filter matches."""
    wanted, got = pattern.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(got) or level not in ("+", got[place]):
            return False
    return len(wanted) == len(got)


def number_of(reading: Json, name: str) -> float:
    """Return a field by its name or JSON pointer."""
    value = reading
    for part in name[1:].split("/") if name.startswith("/") else [name]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return float(value)


def rows(payload: bytes, source: Json, arrival: int) -> list[tuple[int, tuple[float, ...]]]:
    """Return the times and values in a payload: an object, an array of objects, or columns."""
    body = json.loads(payload)
    names = source["fields"]
    if isinstance(body, dict) and isinstance(next(iter(body.values())), list):
        body = [dict(zip(body, row, strict=True)) for row in zip(*body.values(), strict=True)]
    found = []
    for reading in body if isinstance(body, list) else [body]:
        when = arrival
        if "time" in source:
            stamp = reading[source["time"]]
            when = moment(stamp) if isinstance(stamp, str) else from_seconds(stamp)
        found.append((when, tuple(number_of(reading, name) for name in names)))
    return found


def identity(processor: str, source: str, stream: str, times: Sequence[int], values: Sequence[Sequence[float]]) -> str:
    """Return a window's id."""
    digest = hashlib.sha256()
    for text in (processor, source, "default", stream):
        digest.update(struct.pack("<I", len(text.encode())) + text.encode())
    digest.update(struct.pack(f"<{len(times)}q", *times))
    for row in values:
        digest.update(struct.pack(f"<{len(row)}d", *row))
    return digest.hexdigest()[:32]


def windows(recording: Path, settings: Json) -> Iterator[Window]:
    """Yield the windows of a recording in order, with the model's output, one at a time."""
    model, shape = settings["model"], settings["model"]["window"]
    run = session_of(model["path"])
    shadow = None if model.get("shadow") is None else session_of(model["shadow"]["path"])
    size, step, gap = shape["size"], shape.get("step", 1), duration(shape["max_gap"])
    mean, std = model.get("input", {}).get("mean"), model.get("input", {}).get("std")
    streams: defaultdict[tuple[str, str], Stream] = defaultdict(Stream)
    for line in recording.read_text().splitlines():
        message = json.loads(line)
        source = next(s for s in settings["sources"] if any(matches(topic, message["topic"]) for topic in s["topics"]))
        key = source.get("stream", "{topic}").format(topic=Topic(message["topic"]), source=source["name"])
        stream = streams[source["name"], key]
        for when, row in rows(base64.b64decode(message["payload"]), source, from_seconds(message["time"])):
            if stream.times and abs(when - stream.times[-1]) > gap:
                stream.times, stream.values = [], []
                stream.chapter += 1
            stream.times.append(when)
            stream.values.append(row)
            if len(stream.times) < size or (len(stream.times) - size) % step:
                continue
            times, values = tuple(stream.times[-size:]), tuple(stream.values[-size:])
            seen = np.array(values)
            if mean is not None:
                seen = (seen - np.array(mean)) / np.array(std)
            chosen = shadow is not None and in_shadow(settings, when)
            yield Window(
                identity(settings["id"], source["name"], key, times, values),
                source["name"],
                key,
                times,
                values,
                tuple(source["fields"]),
                stream.windows,
                stream.chapter,
                run(seen),
                shadow(seen) if chosen and shadow is not None else None,
            )
            stream.windows += 1


def session_of(path: str) -> Callable[[Any], tuple[float, ...]]:
    """Return what asks a model about one window, (size, channels)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given, wanted = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(seen: Any) -> tuple[float, ...]:  # noqa: ANN401 - an array
        answer = session.run([wanted], {given: seen.T[None].astype(np.float32)})[0]
        return tuple(float(number) for number in np.ravel(answer))

    return run


def in_shadow(settings: Json, t: int) -> bool:
    """Return whether the shadow judges the windows of the tenth of a second that `t` lies in."""
    return bool(uniform(settings["id"], f"shadow/{t // 10**8}") < settings["model"]["shadow"]["sample"])


class Topic(str):
    """A topic whose levels a stream's template can name: {topic}, {topic[1]}."""

    __slots__ = ()

    def __getitem__(self, level: Any) -> str:  # noqa: ANN401 - str's own signature, narrowed by format
        """Return a level."""
        return str.split(self, "/")[int(level)]


# --- measures ------------------------------------------------------------------------------------------------------


def probabilities(window: Window, settings: Json) -> dict[str, float]:
    """Return each label's probability; of a single score, those of its two labels."""
    model = settings["model"]
    kind = model["output"]["kind"]
    if kind == "value":
        return {}
    labels = model["output"]["labels"]
    p = [1 - window.output[0], window.output[0]] if kind == "score" else list(window.output)
    if (temperature := model.get("temperature", 1.0)) != 1.0:
        p = [x ** (1 / temperature) for x in p]
        p = [x / sum(p) for x in p]
    return dict(zip(labels, p, strict=True))


def disagreement(window: Window, p: dict[str, float], settings: Json) -> float | None:
    """Return how far the shadow's answer lies from the model's; None where there is none."""
    if window.shadow is None:
        return None
    q = dict(zip(settings["model"]["shadow"]["output"]["labels"], window.shadow, strict=True))
    return math.fsum(abs(p.get(label, 0.0) - q.get(label, 0.0)) for label in {**p, **q}) / 2


def score_of(rule: Json, window: Window, p: dict[str, float], settings: Json) -> float | None:
    """Return a window's score for a rule's measure."""
    if rule.get("measure") == "disagreement":
        return disagreement(window, p, settings)
    return _own_score(rule, window, p)


def _own_score(rule: Json, window: Window, p: dict[str, float]) -> float | None:
    best = sorted(p.values(), reverse=True)
    match rule.get("measure"):
        case "confidence":
            return best[0]
        case "margin":
            return best[0] - best[1]
        case "entropy":
            return -math.fsum(x * math.log(x) for x in best if x > 0) / math.log(len(best))
        case "probability":
            return p[rule["label"]]
        case "score" | "value":
            return window.output[0]
    return None


# --- schedule ------------------------------------------------------------------------------------------------------


def active(schedule: Json, t: int) -> bool:
    """Return whether a schedule is active at `t`, nanoseconds since the epoch."""
    if not schedule:
        return True
    zone = ZoneInfo(schedule.get("timezone", "UTC"))
    if cycle := schedule.get("duty_cycle"):
        period = duration(cycle["period"])
        if t % period >= Fraction(str(cycle["fraction"])) * period:
            return False
    given = [key for key in ("between", "weekly", "cron") if key in schedule]
    return not given or any(
        within(interval, zone, t)
        for key, within in (("between", in_between), ("weekly", in_week), ("cron", in_cron))
        for interval in schedule.get(key, [])
    )


def in_between(interval: Json, zone: tzinfo, t: int) -> bool:
    """Return whether `t` is from start to before end."""
    return moment(interval["start"], zone) <= t < moment(interval["end"], zone)


def in_week(interval: Json, zone: tzinfo, t: int) -> bool:
    """Return whether the wall clock at `t` is in a weekly interval; one over midnight is of the day it starts."""
    local = (EPOCH + timedelta(microseconds=t // 1000)).astimezone(zone)
    start, end = time.fromisoformat(interval["from"]), time.fromisoformat(interval["to"])
    today: date = local.date()
    wall = local.time().replace(fold=0)
    days = [DAYS[today.weekday()], DAYS[(today - timedelta(days=1)).weekday()]]
    if start < end:
        return days[0] in interval["days"] and start <= wall < end
    return (days[0] in interval["days"] and wall >= start) or (days[1] in interval["days"] and wall < end)


def in_cron(interval: Json, zone: tzinfo, t: int) -> bool:
    """Return whether a start of the cron line is at most its duration ago, in elapsed time."""
    span = duration(interval["duration"])
    now = EPOCH + timedelta(microseconds=t // 1000)
    for start in CronSim(interval["cron"], (now - timedelta(microseconds=span // 1000, days=1)).astimezone(zone)):
        since = (start.astimezone(UTC) - EPOCH) // timedelta(microseconds=1) * 1000
        if since > t:
            return False
        if t < since + span:
            return True
    return False


# --- rules ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Rule:
    """A rule and what it remembers."""

    body: Json
    scores: deque[float] = field(default_factory=deque)
    credit: float = 0.0
    clocks: dict[str, int] = field(default_factory=dict)
    taken: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        """Start with half of the credit that 200 windows or two samples bring."""
        if keep := self.body.get("keep"):
            self.credit = max(200 * keep["share"], 2) / 2

    def in_where(self, window: Window, label: str | None) -> bool:
        """Return whether all given conditions hold."""
        where = self.body.get("where", {})
        newest = dict(zip(window.fields, window.values[-1], strict=True))
        return (
            (not where.get("labels") or label in where["labels"])
            and (not where.get("streams") or any(matches(s, window.stream) for s in where["streams"]))
            and all(
                edge.get("min", -math.inf) <= newest[name] <= edge.get("max", math.inf)
                for name, edge in where.get("fields", {}).items()
            )
        )

    def in_band(self, score: float | None) -> bool:
        """Return whether the score is in the closed band, or outside it where that is asked."""
        band = self.body.get("band")
        if score is None and self.body.get("measure") == "disagreement":
            return False
        if band is None or score is None:
            return True
        inside = bool(band.get("min", -math.inf) <= score <= band.get("max", math.inf))
        return inside is not bool(self.body.get("outside", False))

    def keeps(self, score: float | None, u: float) -> bool:
        """Return whether the score is among the most extreme share of the last ones, and remember it."""
        keep = self.body.get("keep")
        if keep is None or score is None:
            return True
        share, memory = keep["share"], keep.get("over", 5000)
        extreme = score if keep.get("of", "highest") == "highest" else -score
        self.scores.append(extreme)
        if len(self.scores) > memory:
            self.scores.popleft()
        more = sum(1 for other in self.scores if other > extreme)
        equal = sum(1 for other in self.scores if other == extreme)
        rank = (more + u * equal) / len(self.scores)
        full = max(200 * share, 2)
        self.credit = min(self.credit + share, 4 * full)
        if self.credit >= 1 and rank < share * 2 ** (8 * (self.credit - full / 2) / full):
            self.credit -= 1
            return True
        return False

    def key(self, condition: Json, window: Window, label: str | None) -> str:
        """Return what a cooldown or limit counts by."""
        by = condition.get("by", "stream" if "for" in condition else "rule")
        return f"{by} " + {"rule": "", "label": label or "", "stream": f"{window.source}/{window.stream}"}[by]

    def clock(self, name: str, key: str, t: int) -> int:
        """Return the running maximum of the windows' times under a key."""
        now = max(t, self.clocks.get(f"{name} {key}", t))
        self.clocks[f"{name} {key}"] = now
        return now

    def judge(self, window: Window, label: str | None, score: float | None) -> tuple[str | None, bool]:
        """Return the first condition that refuses the window, and whether every one but `sample` would accept it."""
        stateless = {
            "schedule": active(self.body.get("schedule"), window.time),
            "where": self.in_where(window, label),
            "band": self.in_band(score),
        }
        if not all(stateless.values()):
            return next(reason for reason, holds in stateless.items() if not holds), False
        if not self.keeps(score, uniform(window.id, f"{self.body['name']}/keep")):
            return "keep", False
        u = uniform(window.id, self.body["name"])
        refused = None if u < self.body.get("sample", 1.0) else "sampled_out"
        if (cooldown := self.body.get("cooldown")) is not None:
            key = self.key(cooldown, window, label)
            now = self.clock("cooldown", key, window.time)
            last = self.taken[f"cooldown {key}"]
            if last and now < last[-1] + duration(cooldown["for"]):
                return refused or "cooldown", False
        if (limit := self.body.get("limit")) is not None:
            key = self.key(limit, window, label)
            now = self.clock("limit", key, window.time)
            recent = [t for t in self.taken[f"limit {key}"] if t > now - duration(limit["per"])]
            if len(recent) >= limit["max"]:
                return refused or "limit", False
        return refused, True

    def spend(self, window: Window, label: str | None) -> None:
        """Remember a sample that this rule kept."""
        for name in ("cooldown", "limit"):
            if (condition := self.body.get(name)) is not None:
                key = self.key(condition, window, label)
                self.taken[f"{name} {key}"].append(self.clocks[f"{name} {key}"])


def uniform(window: str, rule: str) -> float:
    """Return the uniform number of a window and rule."""
    return int.from_bytes(hashlib.sha256(f"{window}/{rule}".encode()).digest()[:8], "big") / 2**64


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample."""

    window: Window
    rule: str
    label: str | None
    score: float | None
    probability: float


@dataclass(slots=True)
class Outcome:
    """What a filter does with a recording."""

    kept: list[Kept] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


def select(seen: Sequence[Window], settings: Json, document: Json) -> Outcome:
    """Return what a filter keeps of windows, and why it refuses the others."""
    outcome = Outcome()
    rules = [Rule(body) for body in document.get("rules", [])]
    for window in seen:
        if not document.get("enabled", True):
            outcome.reasons["disabled"] += 1
        elif not active(document.get("schedule"), window.time):
            outcome.reasons["schedule"] += 1
        elif not rules:
            outcome.reasons["no_rule"] += 1
        else:
            _judge(window, rules, settings, outcome)
    return outcome


def _judge(window: Window, rules: list[Rule], settings: Json, outcome: Outcome) -> None:
    p = probabilities(window, settings)
    label = max(p, key=lambda name: p[name]) if p else None
    scores = [score_of(rule.body, window, p, settings) for rule in rules]
    verdicts = [rule.judge(window, label, score) for rule, score in zip(rules, scores, strict=True)]
    first = next((place for place, (refused, _) in enumerate(verdicts) if refused is None), None)
    if first is None:
        outcome.reasons[max((str(refused) for refused, _ in verdicts), key=REASONS.index)] += 1
        return
    rules[first].spend(window, label)
    missed = {"shadow": 1.0, "others": 1.0}
    for rule, (_, open_) in zip(rules, verdicts, strict=True):
        whose = "shadow" if rule.body.get("measure") == "disagreement" else "others"
        missed[whose] *= 1 - rule.body.get("sample", 1.0) * open_
    chance = 1 - missed["others"] * missed["shadow"]
    if missed["others"] == 1:  # only what the shadow judged is kept, and counts for what it did not
        chance *= settings["model"]["shadow"]["sample"]
    outcome.kept.append(Kept(window, rules[first].body["name"], label, scores[first], chance))


def neighbours(seen: Sequence[Window], outcome: Outcome, document: Json) -> dict[str, set[tuple[str, int]]]:
    """Return the windows that go along as context: id to the samples, and offsets, it is context of."""
    spans = {rule["name"]: rule.get("context", {}) for rule in document.get("rules", [])}
    kept = {sample.window.id for sample in outcome.kept}
    places = {(w.source, w.stream, w.chapter, w.place): w for w in seen}
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for sample in outcome.kept:
        span, w = spans[sample.rule], sample.window
        for offset in range(-span.get("before", 0), span.get("after", 0) + 1):
            other = places.get((w.source, w.stream, w.chapter, w.place + offset))
            if other is not None and other.id not in kept:
                found[other.id].add((w.id, offset))
    return found
