"""The keys of a source for a family, by the shape of its payloads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from processor.discover import binary
from processor.discover.fields import Fields
from processor.discover.look import Look
from processor.discover.looks import Signature
from processor.discover.pace import Pace
from processor.discover.trees import name
from processor.types import NS

_AHEAD: Final = 86_400 * NS
"""`max_ahead` where nothing else is said."""
_SKEWED: Final = 60 * NS
"""A clock this far from ours is told of."""
_SLOW: Final = 0.8
"""Seconds between readings from which on whole seconds tell them apart, more or less."""
_NODES: Final = 8
"""Named in a note."""
_SIDE: Final = 224
"""Pixels that images have for most models."""
COLORS: Final[Mapping[str, tuple[str, ...]]] = {"grey": ("grey",), "rgb": ("red", "green", "blue")}
"""What the channels of an image are called."""
_RATE_NAME: Final = re.compile(r"rate|hz|fs|freq|frequency|sampl(e|ing)_?(rate|frequency)", re.IGNORECASE)


class Given(NamedTuple):
    """What a source is drafted from."""

    signature: Signature
    fields: Fields
    pace: Pace
    looks: Sequence[Look]
    payloads: Sequence[bytes]
    """Of one topic, in the order of arrival."""
    channels: Sequence[int]
    """What a model may want; empty: any number."""


@dataclass(slots=True)
class Draft:
    """A source without its name, topics and format.

    Attributes:
        keys: of the source.
        channels: names of the values in a reading.
        notes: what to look at, sentences.
        guess: what is not certain, as a clause.
        problem: why there is none, as a clause.
        made_up: whether the channels' names are not the payload's.
        readings: in a message, where looking at one does not tell.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    guess: str = ""
    problem: str = ""
    made_up: bool = False
    readings: float = 1.0


def draft(given: Given) -> Draft:
    """Return the source for what is given."""
    made = Draft()
    _KINDS[given.signature.kind](made, given)
    if not made.channels and not made.problem:
        made.problem = "no field is a measurement"
    return made


def _of_objects(made: Draft, given: Given) -> None:
    _add_fields(made, given.fields.measured)
    _add_stream(made, given.fields)
    _add_time(made, given)
    _add_missing(made, given.fields)


def _of_columns(made: Draft, given: Given) -> None:
    around = given.signature.details[0]
    outside = around if isinstance(around, frozenset) else frozenset()
    fields = given.fields
    _add_fields(made, [name for name in fields.measured if name not in outside])
    _add_stream(made, fields)
    if fields.time is not None and fields.time.name in outside:
        told = f"{fields.time.name} is one time for many readings, which need one each: the time of arrival is taken."
        made.notes.append(told)
    else:
        _add_time(made, given)
    _add_missing(made, fields)


def _of_lines(made: Draft, given: Given) -> None:
    delimiter, header, names = given.signature.details
    csv = {"delimiter": delimiter} if delimiter != "," else {}
    made.keys["csv"] = csv | ({"header": True} if header else {"columns": _texts(names)})
    _of_objects(made, given)
    if not header:
        made.made_up = True
        made.notes.append("There is no header: c0, c1 … are made up.")


def _of_numbers(made: Draft, given: Given) -> None:
    _add_fields(made, list(given.looks[0].records[0]))
    made.made_up = True
    made.notes.append("The payload does not say what its numbers are called: c0, c1 … are made up.")


def _of_number(made: Draft, given: Given) -> None:
    made.made_up = True
    if given.signature.format == "number":
        made.channels = ("value",)
    else:
        _add_fields(made, ["value"])


def _of_base(made: Draft, given: Given) -> None:
    """Add many readings with one time."""
    values, called = given.signature.details
    fields, pace = given.fields, given.pace
    if fields.time is None:
        made.problem = f"{values} holds many readings, and no field is the time of the first"
        return
    rate: float | str | None = next((name for name in fields.measured if _RATE_NAME.fullmatch(last_name(name))), None)
    if rate is None and pace.interval is None:
        made.problem = f"{values} holds many readings, and neither a field nor the arrivals tell their rate"
        return
    if rate is None and pace.interval is not None:
        rate = float(f"{1 / pace.interval:.2g}")
        made.guess = f"{rate:g} readings in a second is how fast they came; no field tells it"
    _add_fields(made, _texts(called))
    made.made_up = made.channels[:1] == ("c0",)
    _add_stream(made, fields)
    made.keys["base"] = {"time": fields.time.name, "rate": rate, "values": values}
    made.keys["time_unit"] = fields.time.unit


def _of_bytes(made: Draft, given: Given) -> None:
    """Add what numbers one after another seem to be."""
    found = binary.guess(given.payloads, given.channels)
    if found is None:
        made.problem = "bytes that look like no sensor's numbers"
        return
    _add_fields(made, [name(number) for number in range(found.channels)])
    made.made_up = True
    keys: dict[str, Any] = {"dtype": found.dtype}
    if found.order != "TC":
        keys["order"] = found.order
    if found.skip:
        keys["skip"] = found.skip
    interval = given.pace.interval
    if found.readings > 1 and interval is not None:
        keys["rate"] = float(f"{found.readings / interval:.3g}")
    made.keys["binary"] = keys
    made.readings = found.readings
    made.guess = f"bytes do not say what they mean; {found} is what makes them look most like a signal"


def _of_nodes(made: Draft, given: Given) -> None:
    """Add OPC UA's nodes, each a stream of its own."""
    measured, fields = given.fields.measured + given.fields.flags, given.fields
    if not measured:
        return
    others = [*fields.left_out, *([fields.time.name] if fields.time else []), *([fields.key] if fields.key else [])]
    if others:
        made.keys["opcua"] = {"nodes": measured}
    made.channels = ("value",)
    made.made_up = True
    told = ", ".join(measured[:_NODES]) + (f" and {len(measured) - _NODES} more" if len(measured) > _NODES else "")
    made.notes.append(f"Each node is a stream of its own: {told}.")


def _of_metrics(made: Draft, given: Given) -> None:
    """Add the metrics of Sparkplug."""
    _add_fields(made, given.fields.measured)
    _add_missing(made, given.fields)


def _of_image(made: Draft, given: Given) -> None:
    """Add images, of the size that most models take; which it is, and the colours, are the model's to say."""
    sizes = Counter(f"{look.records[0]['width']}x{look.records[0]['height']}" for look in given.looks)
    color = "grey" if all(look.records[0]["color"] == "grey" for look in given.looks) else "rgb"
    made.keys["image"] = {"height": _SIDE, "width": _SIDE, "color": color}
    made.channels = COLORS[color]
    made.notes.append(f"They come as {', '.join(size for size, _ in sizes.most_common(3))} pixels, and are scaled.")


_KINDS: Final[Mapping[str, Callable[[Draft, Given], None]]] = {
    "object": _of_objects,
    "objects": _of_objects,
    "columns": _of_columns,
    "base": _of_base,
    "bytes": _of_bytes,
    "nodes": _of_nodes,
    "metrics": _of_metrics,
    "image": _of_image,
    "numbers": _of_numbers,
    "number": _of_number,
    "lines": _of_lines,
}


def last_name(name: str) -> str:
    """Return a field's name; of a pointer, its last step."""
    return name.rpartition("/")[2] or name


def _texts(names: object) -> list[str]:
    return list(map(str, names)) if isinstance(names, tuple) else []


def _add_fields(made: Draft, names: Sequence[str]) -> None:
    made.keys["fields"] = list(names)
    made.channels = tuple(names)


def _add_stream(made: Draft, fields: Fields) -> None:
    if fields.key:
        made.keys["stream"] = f"{{topic}}/{{field:{fields.key}}}" if fields.key_repeats else f"{{field:{fields.key}}}"
        made.notes.append(f"Several devices share a topic: {fields.key} tells them apart.")


def _add_time(made: Draft, given: Given) -> None:
    time = given.fields.time
    if time is None:
        made.notes.append("No field is a time: the time of arrival is taken.")
        return
    if time.ahead > _AHEAD:
        told = f"{time.name} is {_long(time.ahead)} in the future: the time of arrival is taken instead."
        made.notes.append(told)
        return
    made.keys["time"] = time.name
    made.keys["time_unit"] = time.unit
    if abs(time.ahead) > _SKEWED:
        direction = "after" if time.ahead > 0 else "before"
        made.notes.append(f"{time.name} is {_long(abs(time.ahead))} {direction} the arrival; is it UTC?")
    interval = given.pace.interval
    if time.whole and interval is not None and interval < _SLOW:
        made.notes.append(f"{time.name} is in whole seconds, and readings come faster: several have the same time.")


def _long(duration: int) -> str:
    seconds = duration / NS
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _add_missing(made: Draft, fields: Fields) -> None:
    lacking = {name: share for name, share in fields.sometimes.items() if name in made.channels}
    if lacking:
        made.keys["missing"] = "hold"
        told = ", ".join(f"{name} ({share:.0%})" for name, share in lacking.items())
        made.notes.append(f"Readings sometimes lack {told}: missing: hold takes what came last.")
