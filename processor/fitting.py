"""What the sections of a configuration have to do with each other. `data` is what the user wrote: of any type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from processor import topics
from processor.document import Flaw, describe
from processor.source_sections import ImageKeys


def flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Return what does not fit: names used twice, sources and one model, inlets and where they come from."""
    yield from _named_twice(data, "sources", "input")
    yield from _named_twice(data, "bridges", "type")
    yield from _without_broker(data)
    yield from _inputs(data)
    yield from _model_and_sources(data)
    yield from _images(data)


def _model_and_sources(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse sources that do not fit one model or each other."""
    model = data.get("model")
    model = model if isinstance(model, dict) else {}
    window = model.get("window")
    size = _whole(window.get("size"), 1) if isinstance(window, dict) else 1
    counts = []
    for position, source in enumerate(_mappings(data.get("sources"))):
        fields, filters = source.get("fields"), source.get("topics")
        counts.append(len(fields) if isinstance(fields, list) else 0)
        if counts[0] and counts[-1] and counts[-1] != counts[0]:
            yield Flaw(
                ("sources", position, "fields"),
                f"found {counts[-1]}, but sources[0] has {counts[0]}; all sources feed one model and must agree",
            )
        for index, text in enumerate(filters if isinstance(filters, list) else ()):
            if size > 1 and isinstance(text, str) and topics.split_share(text).group is not None:
                yield Flaw(
                    ("sources", position, "topics", index),
                    f"a shared subscription spreads a stream over processors, and a window holds {size} readings; "
                    "$share needs model.window.size 1",
                )
    given = model.get("input")
    if counts and counts[0]:
        yield from _moments(given, counts[0], "field")


def _moments(given: object, count: int, each: str) -> Iterator[Flaw]:
    """Refuse a mean or a standard deviation that does not fit so many of what each is of."""
    for key in ("mean", "std"):
        value = given.get(key) if isinstance(given, dict) else None
        if isinstance(value, list) and len(value) not in (1, count):
            text = f"{len(value)} numbers for {count} {each}s; expected one, or one a {each}"
            yield Flaw(("model", "input", key), text)


def _images(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse images beside readings of fields, images of several sizes, and more than one in a window."""
    sources = _mappings(data.get("sources"))
    if all(source.get("format") != "image" for source in sources):
        return
    model = data.get("model")
    window, given = (model.get("window"), model.get("input")) if isinstance(model, dict) else (None, None)
    size = _whole(window.get("size"), 1) if isinstance(window, dict) else 1
    if size > 1:
        yield Flaw(("model", "window", "size"), f"found {size}, expected 1: a window of images is one image")
    first = _image(sources[0])
    if first is not None:
        yield from _moments(given, first.channels, "colour")
    for position, source in enumerate(sources):
        this = _image(source)
        if source and sources[0] and (source.get("format") == "image") != (sources[0].get("format") == "image"):
            found, other = (describe(each.get("format", "json")) for each in (source, sources[0]))
            text = f"found {found}, but sources[0] has {other}; all sources feed one model, images or not"
            yield Flaw(("sources", position, "format"), text)
        elif first is not None and this is not None and first != this:
            text = f"found {this}, but sources[0] has {first}; all sources feed one model and must agree"
            yield Flaw(("sources", position, "image"), text)


def _image(source: Mapping[str, Any]) -> ImageKeys | None:
    """Return what a source's images are made to look like; None where it has none, or that cannot be told."""
    if source.get("format") != "image":
        return None
    try:
        return ImageKeys.model_validate(source.get("image", {}))
    except ValidationError:  # told at its place
        return None


def _named_twice(data: Mapping[str, Any], kind: str, default: str) -> Iterator[Flaw]:
    seen: set[str] = set()
    for position, entry in enumerate(_mappings(data.get(kind))):
        name = entry.get("name", entry.get(default))
        if not isinstance(name, str):
            continue
        if name in seen:
            yield Flaw((kind, position, "name"), f"{name!r} is used twice; give each of the {kind} a name of its own")
        seen.add(name)


def _without_broker(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse what needs a broker where there is none."""
    if data.get("broker", {}) is not None:
        return
    for position, source in enumerate(_mappings(data.get("sources"))):
        if source.get("topics"):
            yield Flaw(("sources", position, "topics"), "there is no broker (broker is null); give an input instead")
        elif source.get("format") == "sparkplug":
            yield Flaw(("sources", position, "format"), "Sparkplug B comes from a broker, and broker is null")
    bridges = data.get("bridges", [{"type": "mqtt"}])
    for position, bridge in enumerate(_mappings(bridges)):
        if bridge.get("type") == "mqtt":
            where: tuple[str | int, ...] = ("bridges", position) if "bridges" in data else ("bridges",)
            yield Flaw(where, "the bridge mqtt, which is the default, needs a broker, and broker is null")


def _inputs(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse an input that nothing comes on, or that two sources take."""
    bridges = _mappings(data.get("bridges"))
    taken: dict[str, int] = {}
    for position, source in enumerate(_mappings(data.get("sources"))):
        name = source.get("input")
        if not isinstance(name, str):
            continue
        if all(bridge.get("type") != "iothub" for bridge in bridges):
            yield Flaw(
                ("sources", position, "input"), "inputs are IoT Edge's; add the bridge {type: iothub, edge: true}"
            )
        if taken.setdefault(name, position) != position:
            yield Flaw(("sources", position, "input"), f"{name!r} is also the input of sources[{taken[name]}]")


def _mappings(value: object) -> list[dict[str, Any]]:
    """Return the entries of what should be a list of mappings; empty ones for what is something else."""
    return [entry if isinstance(entry, dict) else {} for entry in value] if isinstance(value, list) else []


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) else int(value) if isinstance(value, str) and value.isdecimal() else default
