"""What the sections of a configuration have to do with each other. `data` is what the user wrote: of any type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from processor import topics
from processor.document import Flaw


def flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Return what does not fit: names used twice, sources and one model, inlets and where they come from."""
    yield from _named_twice(data, "sources", "input")
    yield from _named_twice(data, "bridges", "type")
    yield from _without_broker(data)
    yield from _inputs(data)
    yield from _model_and_sources(data)


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
    given = given if isinstance(given, dict) and counts and counts[0] else {}
    for key in ("mean", "std"):
        value = given.get(key)
        if isinstance(value, list) and len(value) not in (1, counts[0]):
            text = f"{len(value)} numbers for {counts[0]} fields; expected one, or one a field"
            yield Flaw(("model", "input", key), text)


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
