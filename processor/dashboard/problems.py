"""What is wrong with a processor, each in a sentence that says what it means and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import IntEnum
from typing import Any, Final, NamedTuple

from processor.dashboard import words
from processor.dashboard.fleet import Processor
from processor.printing import errors_of
from processor.told import Metrics

_SILENT: Final = 10.0
"""Seconds without a word from a processor that is online, where it is not known how often it speaks."""
_MINUTES: Final = 5
"""Of the last ones, looked at for what should not go on."""
_FEW: Final = 0.01
"""A smaller part of the messages may be dead letters without a warning."""
_FEW_WINDOWS: Final = 1000
"""With fewer in an hour, that none was kept says nothing."""


class Level(IntEnum):
    """How bad it is; the worst first."""

    BROKEN = 0
    """It does not do its job."""
    WARNING = 1
    """Something is lost, or will be."""
    NOTICE = 2
    """Somebody may have forgotten something."""
    WELL = 3


class Problem(NamedTuple):
    """Something wrong."""

    level: Level
    sentence: str


def problems(processor: Processor, now: float, wall: datetime) -> list[Problem]:
    """Return what is wrong, the worst first.

    Args:
        processor: the one.
        now: on the monotonic clock.
        wall: the same in the zone of those who read it.
    """
    metrics = processor.metrics
    found: list[Problem] = []
    if not processor.online:
        found.append(_absent(processor, wall))
    elif metrics is None:
        found.append(Problem(Level.NOTICE, "Online, and has told no figures yet."))
    else:
        found += _silent(processor, now)
        found += _stuck(metrics)
        found += _losing(metrics)
        found += _quiet(metrics, processor.active)
    found += _rejected(processor)
    return sorted(found, key=lambda one: one.level)


def level(found: list[Problem]) -> Level:
    """Return how bad all of it is."""
    return found[0].level if found else Level.WELL


def _absent(processor: Processor, wall: datetime) -> Problem:
    if processor == Processor(processor.root):
        return Problem(Level.NOTICE, "Nothing on this broker, as far as this page may read it, is of such a processor.")
    if processor.online is None:
        return Problem(Level.NOTICE, "Has left traces on this broker, but says neither that it is online nor offline.")
    metrics = processor.metrics
    since = f", last heard {words.when(metrics.time, wall)}" if metrics else ""
    samples = metrics.outbox.samples if metrics else 0
    waiting = f" {words.count(samples)} samples wait on its disk." if samples else ""
    return Problem(Level.BROKEN, f"Offline{since}.{waiting}")


def _silent(processor: Processor, now: float) -> Iterator[Problem]:
    silence = now - processor.heard
    if silence > max(_SILENT, 4 * processor.every):
        text = f"Says it is online, but has told nothing for {words.span(silence)}: it may hang, or its link is slow."
        yield Problem(Level.BROKEN, text)


def _stuck(metrics: Metrics) -> Iterator[Problem]:
    if metrics.blocked:
        text = f"Takes nothing in: {metrics.blocked.rstrip('.')}. It goes on by itself when there is room."
        yield Problem(Level.BROKEN, text)
    for name, bridge in metrics.bridges.items():
        waiting = f" {words.count(bridge.waiting)} samples wait for it." if bridge.waiting else ""
        if bridge.error:
            text = f"The bridge {name} delivers nothing: {bridge.error.rstrip('.')}.{waiting}"
            yield Problem(Level.BROKEN, text)
        elif bridge.connected == 0:
            yield Problem(Level.WARNING, f"The bridge {name} has no connection.{waiting}")


def _losing(metrics: Metrics) -> Iterator[Problem]:
    for reason, why in _LOSSES.items():
        lost = metrics.outbox.lost.get(reason, 0)
        if lost:
            samples = "1 sample was" if lost == 1 else f"{words.count(lost)} samples were"
            yield Problem(Level.WARNING, f"{samples} lost since its start: {why}.")
    messages, letters = (_recent(metrics, name) for name in ("messages", "dead_letters"))
    if letters:
        most = max(metrics.dead_letters.items(), key=lambda item: item[1], default=("", 0))[0]
        part = f"{words.count(letters)} of {words.count(messages)}"
        text = f"{part} messages of the last minutes could not be used, mostly {most}; see its dead letters."
        yield Problem(Level.NOTICE if letters < messages * _FEW else Level.WARNING, text)
    dropped = metrics.counters.get("dropped_messages", 0)
    if dropped:
        yield Problem(
            Level.WARNING, f"{words.count(dropped)} messages of QoS 0 were dropped while it could take nothing in."
        )
    if metrics.counters.get("lost_sessions"):
        text = "The broker has not kept what came while this processor was away; look at the broker's persistence."
        yield Problem(Level.WARNING, text)


_LOSSES: Final[Mapping[str, str]] = {
    "expired": "they were older than the outbox keeps them",
    "displaced": "the outbox was full, and newer or more important ones came",
    "refused": "the outbox was full",
    "undeliverable": "a bridge can never take them",
}


def _recent(metrics: Metrics, name: str) -> int:
    return sum(metrics.last_hour.minutes.get(name, [])[-_MINUTES:])


def _quiet(metrics: Metrics, active: Mapping[str, Any]) -> Iterator[Problem]:
    minutes = metrics.last_hour.minutes
    if metrics.paused:
        yield Problem(Level.NOTICE, "Paused: it reads everything and keeps nothing until somebody resumes it.")
    elif active.get("enabled") is False:
        yield Problem(Level.NOTICE, "Its filter is switched off, so nothing is kept.")
    elif active and not active.get("rules"):
        yield Problem(Level.NOTICE, "Its filter has no rules, so nothing is kept.")
    elif metrics.schedule.active and (windows := _kept_none_of(minutes)):
        text = f"None of {words.count(windows)} windows of the last hour was kept: is the band too narrow?"
        yield Problem(Level.NOTICE, text)
    if len(minutes.get("messages", [])) > _MINUTES and not _recent(metrics, "messages"):
        yield Problem(
            Level.NOTICE, f"No message for {_MINUTES} minutes: are the sensors on, and its topics the right ones?"
        )


def _kept_none_of(minutes: Mapping[str, list[int]]) -> int:
    """Return how many windows of the last hour none was kept of; 0 where one was, or they are few."""
    windows = sum(minutes.get("windows", []))
    return windows if windows >= _FEW_WINDOWS and not sum(minutes.get("accepted", [])) else 0


def _rejected(processor: Processor) -> Iterator[Problem]:
    told = [("filter", processor.filter), ("model", processor.model)]
    told += [(f"filter of {name}", slot.filter) for name, slot in processor.slots.items()]
    told += [(f"model of {name}", slot.model) for name, slot in processor.slots.items()]
    for kind, state in told:
        if state is None or state.status not in ("rejected", "waiting"):
            continue
        errors = errors_of(state)
        first = f": {errors[0].rstrip('.')}" if errors else ""
        others = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
        stays = f"Revision {state.revision} stays in force."
        became = "was rejected" if state.status == "rejected" else "cannot be had now, and is tried again"
        level = Level.WARNING if state.status == "rejected" else Level.NOTICE
        yield Problem(level, f"The last {kind}, from the {state.source}, {became}{first}{others}. {stays}")
