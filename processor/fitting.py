"""What the sections of a configuration have to do with each other. `data` is what the user wrote: of any type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from processor import topics
from processor.document import Flaw, describe
from processor.source_sections import ImageKeys
from processor.types import MODEL_SLOT


def flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Return what does not fit: names used twice, sources and one model, inlets and where they come from."""
    yield from _named_twice(data, "sources", "input")
    yield from _named_twice(data, "bridges", "type")
    yield from _without_broker(data)
    yield from _inputs(data)
    yield from _models(data)
    for slot in written_slots(data):
        yield from _model_and_sources(slot)
        yield from _images(slot)


class WrittenSlot(NamedTuple):
    """A model as it is written, with the sources that feed it."""

    name: str
    where: tuple[str, ...]
    """Its place in the file."""
    model: Mapping[str, Any]
    sources: Sequence[tuple[int, Mapping[str, Any]]]
    """With their positions."""


def written_slots(data: Mapping[str, Any]) -> list[WrittenSlot]:
    """Return the models of a file, as far as they can be told."""
    model, several = data.get("model"), data.get("models")
    sources = list(enumerate(_mappings(data.get("sources"))))
    if model is not None or not isinstance(several, dict):
        return [WrittenSlot(MODEL_SLOT, ("model",), model if isinstance(model, dict) else {}, sources)]
    only = next(iter(several)) if len(several) == 1 else None
    return [
        WrittenSlot(
            str(name),
            ("models", str(name)),
            one if isinstance(one, dict) else {},
            [(position, source) for position, source in sources if (source.get("model") or only) == name],
        )
        for name, one in several.items()
    ]


def _models(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse no model and two ways to say one, models without sources and sources without a model."""
    given = [key for key in ("model", "filter") if data.get(key) is not None]
    several = data.get("models") or {}
    if not several:
        yield from (Flaw((key,), "this key is required") for key in ("model", "filter") if key not in given)
        yield from _model_of_sources(data, [MODEL_SLOT])
    elif given:
        yield Flaw(("models",), f"found beside {' and '.join(given)}; give models, or model and filter")
    elif isinstance(several, dict):
        names = list(map(str, several))
        yield from _model_of_sources(data, names)
        yield from _without_sources(data)
        if MODEL_SLOT not in names:
            yield from _legacy(data)


def _model_of_sources(data: Mapping[str, Any], names: Sequence[str]) -> Iterator[Flaw]:
    known = ", ".join(names)
    for position, source in enumerate(_mappings(data.get("sources"))):
        wanted = source.get("model")
        if isinstance(wanted, str) and wanted not in names:
            yield Flaw(("sources", position, "model"), f"found {describe(wanted)}, expected a name in models: {known}")
        elif source and wanted is None and len(names) > 1:
            yield Flaw(("sources", position, "model"), f"this key is required: which of the models it feeds, {known}")


def _without_sources(data: Mapping[str, Any]) -> Iterator[Flaw]:
    for slot in written_slots(data):
        if not slot.sources:
            yield Flaw(slot.where, f"no source feeds it; give one of them model: {slot.name}, or leave it out")


def _legacy(data: Mapping[str, Any]) -> Iterator[Flaw]:
    for position, bridge in enumerate(_mappings(data.get("bridges"))):
        if bridge.get("legacy") is not None:
            text = f"MLADE's keys are for the model named {MODEL_SLOT}, and models has none of that name"
            yield Flaw(("bridges", position, "legacy"), text)


def _model_and_sources(slot: WrittenSlot) -> Iterator[Flaw]:
    """Refuse sources that do not fit one model or each other."""
    window = slot.model.get("window")
    size = _whole(window.get("size"), 1) if isinstance(window, dict) else 1
    counts: list[int] = []
    for position, source in slot.sources:
        fields, filters = source.get("fields"), source.get("topics")
        counts.append(len(fields) if isinstance(fields, list) else 0)
        if counts[0] and counts[-1] and counts[-1] != counts[0]:
            text = f"found {counts[-1]}, but sources[{slot.sources[0][0]}] has {counts[0]}"
            yield Flaw(("sources", position, "fields"), f"{text}; all sources feed one model and must agree")
        for index, text in enumerate(filters if isinstance(filters, list) else ()):
            if size > 1 and isinstance(text, str) and topics.split_share(text).group is not None:
                yield Flaw(
                    ("sources", position, "topics", index),
                    f"a shared subscription spreads a stream over processors, and a window holds {size} readings; "
                    f"$share needs {'.'.join(slot.where)}.window.size 1",
                )
    if counts and counts[0]:
        yield from _moments(slot, counts[0], "field")


def _moments(slot: WrittenSlot, count: int, each: str) -> Iterator[Flaw]:
    """Refuse a mean or a standard deviation that does not fit so many of what each is of."""
    given = slot.model.get("input")
    for key in ("mean", "std"):
        value = given.get(key) if isinstance(given, dict) else None
        if isinstance(value, list) and len(value) not in (1, count):
            text = f"{len(value)} numbers for {count} {each}s; expected one, or one a {each}"
            yield Flaw((*slot.where, "input", key), text)


def _images(slot: WrittenSlot) -> Iterator[Flaw]:
    """Refuse images beside readings of fields, images of several sizes, and more than one in a window."""
    if all(source.get("format") != "image" for _, source in slot.sources):
        return
    window = slot.model.get("window")
    size = _whole(window.get("size"), 1) if isinstance(window, dict) else 1
    if size > 1:
        yield Flaw((*slot.where, "window", "size"), f"found {size}, expected 1: a window of images is one image")
    number, leading = slot.sources[0]
    first = _image(leading)
    if first is not None:
        yield from _moments(slot, first.channels, "colour")
    for position, source in slot.sources:
        this = _image(source)
        if source and leading and (source.get("format") == "image") != (leading.get("format") == "image"):
            found, other = (describe(each.get("format", "json")) for each in (source, leading))
            text = f"found {found}, but sources[{number}] has {other}; all sources feed one model, images or not"
            yield Flaw(("sources", position, "format"), text)
        elif first is not None and this is not None and first != this:
            text = f"found {this}, but sources[{number}] has {first}; all sources feed one model and must agree"
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
