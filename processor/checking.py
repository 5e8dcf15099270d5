"""What `mlade check` does: configuration, model and filter, each by itself and against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from processor import settings as configuration
from processor.assembly import filter_problems, legacy_problems, open_model
from processor.bridges.iothub import identity
from processor.errors import ConfigurationError, FilterRejected, ModelError, ModelMisfit, Problem
from processor.filter import FilterDocument, all_problems, to_plain
from processor.fitting import WrittenSlot, written_slots
from processor.model.onnx_model import OnnxModel
from processor.mqtt.client import new_client
from processor.obtaining import obtain
from processor.registry.fetched import Fetched
from processor.settings import (
    BridgeSettings,
    FilesBridge,
    HubBridge,
    Settings,
    Slot,
    as_written,
    client_options,
    read_filter,
)
from processor.shadow.opening import Opened, known_times, open_shadow
from processor.units import duration_text, size_text


class CheckedSlot(NamedTuple):
    """A model that fits its sources and its filter."""

    slot: Slot
    model: OnnxModel
    shadow: Opened
    filter: FilterDocument


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that fits together."""

    settings: Settings
    slots: Sequence[CheckedSlot]


def check(path: Path) -> Checked:
    """Check a configuration file with the models and the filters it names.

    Raises:
        ConfigurationError: with every problem that can be found: filters and models are looked at even where other
            parts of the configuration are wrong.
    """
    overlay = configuration.read(path)
    directory = path.resolve().parent
    problems: list[Problem] = []
    settings = None
    try:
        settings = configuration.check(overlay, directory)
    except ConfigurationError as error:
        problems += error.problems
    if settings is not None:
        problems += _client_problems(settings)
    whole = {} if settings is None else {slot.name: slot for slot in settings.slots}
    checked = [
        _check_slot(written, whole.get(written.name), overlay.data, directory, problems)
        for written in written_slots(overlay.data)
    ]
    complete = [one for one in checked if one is not None]
    if problems or settings is None or len(complete) < len(checked):
        raise ConfigurationError(dict.fromkeys(problems))
    return Checked(settings, complete)


def _check_slot(
    written: WrittenSlot, slot: Slot | None, data: Mapping[str, Any], directory: Path, problems: list[Problem]
) -> CheckedSlot | None:
    """Check a model with its filter, and add to `problems` what is wrong with them.

    Args:
        written: the model as it stands in the file.
        slot: the same, where the whole configuration is right.
        data: the file.
        directory: where it is.
        problems: what was found.
    """
    given = data.get("filter") if written.where == ("model",) else written.model.get("filter")
    slot = slot or _stand_in(written, data, directory)
    document = rejected = None
    named = partial(as_written, where=".".join(written.where), positions=() if slot is None else slot.positions)
    if isinstance(given, dict) or (isinstance(given, str) and given):
        try:
            document, _ = read_filter(given, lambda name: configuration.resolve(directory, name))
        except ConfigurationError as error:
            problems += named(error.problems)
            rejected = error.__cause__ if isinstance(error.__cause__, FilterRejected) else None
    if slot is None:
        return None
    found: list[Problem] = []
    slot, model = _open_model(slot, found)
    shadow = None
    if model is not None:
        fits = partial(filter_problems, slot, model)
        unfit = all_problems(rejected, fits) if rejected else fits(document) if document else ()
        found += [Problem(f"filter.{problem.path}", problem.message) for problem in unfit if problem.path]
        shadow = _open_shadow(slot, model, found)
        found += legacy_problems(slot, model)
    problems += named(found)
    return None if model is None or shadow is None or document is None else CheckedSlot(slot, model, shadow, document)


def _client_problems(settings: Settings) -> Sequence[Problem]:
    """Return what is wrong with the files that the connections need."""
    problems: list[Problem] = []
    if settings.broker is not None:
        try:
            new_client(client_id="check", **client_options(settings))
        except ConfigurationError as error:
            problems += error.problems
    for bridge in settings.bridges:
        if isinstance(bridge, HubBridge):
            try:
                identity.load(bridge, settings)
            except ConfigurationError as error:
                problems += error.problems
    return problems


def _stand_in(written: WrittenSlot, data: Mapping[str, Any], directory: Path) -> Slot | None:
    """Return a model and its sources' fields of a configuration that is wrong elsewhere; None if it is there."""
    readings: dict[int, dict[str, Any]] = {}
    for position, source in written.sources:
        if source.get("format") == "image":
            readings[position] = {"format": "image", "image": source.get("image", {})}
        elif "fields" in source:
            readings[position] = {"fields": source["fields"]}
    if not readings:
        return None
    some = next(iter(readings.values()))
    sources = [{"name": f"s{n}", "topics": [f"t{n}"], **readings.get(n, some)} for n in range(max(readings) + 1)]
    state = {"state_dir": kept} if isinstance(kept := data.get("state_dir"), str) and kept else {}
    models = {written.name: {**written.model, "filter": {}}}
    try:
        settings = configuration.build({**state, "id": "check", "sources": sources, "models": models}, directory)
    except ConfigurationError:
        return None  # told already
    return replace(settings.slots[0], positions=list(readings))


def _open_model(slot: Slot, problems: list[Problem]) -> tuple[Slot, OnnxModel | None]:
    """Return the slot with its model obtained, and the model; None, and why, where it does not open."""
    try:
        slot, _ = obtain(slot)  # apart: what its annotations say counts even where it does not open
        return slot, open_model(slot)
    except ModelMisfit as misfit:
        problems += misfit.problems
    except ModelError as error:
        problems.append(Problem("model.path", str(error)))
    return slot, None


def _open_shadow(slot: Slot, model: OnnxModel, problems: list[Problem]) -> Opened | None:
    try:
        return open_shadow(slot, model, known_times(slot))
    except ModelMisfit as misfit:
        problems += misfit.problems
    return None


def report(checked: Checked) -> Iterator[tuple[str, str]]:
    """Yield what the processor will do, as headings and lines; a heading is empty where it is the one before."""
    settings, broker = checked.settings, checked.settings.broker
    where = f"at {settings.root}/… on {configuration.without_password(broker.url)}" if broker else "without a broker"
    yield "processor", f"{settings.id}, {where}"
    for source in settings.sources:
        named = "SourceTimestamp" if source.format == "opcua" else source.time
        time = f"time from {named}" if named else "time of arrival"
        inlets = [f"{', '.join(source.topics)} at QoS {source.qos}"] if source.topics else []
        inlets += [f"the input {source.input}"] if source.input else []
        stream = f"stream {source.stream_template}"
        feeds = f", for the model {source.model}" if source.model else ""
        yield f"source {source.name}", f"{' and '.join(inlets)}, {source.format}, {stream}, {time}{feeds}"
        for topic in source.topics:
            if topic.startswith(f"{settings.topic_prefix}/"):
                yield "", f"NOTE: nothing comes from {topic}: messages under topic_prefix are never readings"
    for one in checked.slots:
        for heading, line in _slot_lines(one):
            of = f" of {one.slot.name}" if heading and settings.models else ""
            yield heading + of, line
    for bridge in settings.bridges:
        to = _other_side(bridge, settings)
        yield "samples to", f"{bridge.type}: {to}" + (f" ({bridge.name})" if bridge.name != bridge.type else "")
    if not settings.bridges:
        yield "samples to", "nowhere: there is no bridge"
    outbox = settings.outbox
    until = f"{size_text(outbox.max_bytes)} or {duration_text(outbox.max_age)}, then {outbox.when_full}"
    yield "outbox", f"{settings.path(settings.state_dir)}, up to {until}"
    yield "http", settings.http.listen if settings.http else "off"


def _slot_lines(checked: CheckedSlot) -> Iterator[tuple[str, str]]:
    """Yield what is said of one model."""
    slot, model = checked.slot, checked.model
    window = slot.model.window
    readings = "1 reading" if window.size == 1 else f"{window.size} readings"
    every = "every reading" if window.step == 1 else f"every {window.step} readings"
    gap = "whatever the gaps" if window.max_gap is None else f"emptied by a gap over {duration_text(window.max_gap)}"
    yield "windows", f"{readings} of one stream, {every}, {gap}; at most {window.max_streams} streams"
    yield "model input", f"{_readings(slot)} in {readings} become {model.input}"
    for heading, line in model.describe().items():
        if heading != "input":
            yield heading, line
        if heading == "model" and slot.fetched is not None:
            yield from _origin(slot.fetched)
    yield from checked.shadow.describe()
    yield from _filter_lines(checked.filter)


def _origin(fetched: Fetched) -> Iterator[tuple[str, str]]:
    """Say where a model comes from that is not on this machine."""
    if fetched.reference.kind == "file":
        return
    yield "from", f"{fetched.reference.text}, {fetched.digest}, kept in {fetched.path.parent}"
    if fetched.stale:
        yield "", f"NOTE: it is the last good one, not what stands there now: {fetched.stale}"


def _other_side(bridge: BridgeSettings, settings: Settings) -> str:
    """Return where a bridge's samples go."""
    if isinstance(bridge, HubBridge):
        return f"as {identity.describe(identity.load(bridge, settings).identity)}"
    return str(settings.path(bridge.path)) if isinstance(bridge, FilesBridge) else f"{settings.root}/accepted/<rule>"


def _readings(slot: Slot) -> str:
    """Return what a reading is."""
    if slot.sources[0].format == "image":
        return f"images, {slot.sources[0].image},"
    names = [", ".join(source.fields) for source in slot.sources]
    return " or ".join(dict.fromkeys(names))


def _filter_lines(document: FilterDocument) -> Iterator[tuple[str, str]]:
    plain = to_plain(document)
    if not document.enabled:
        yield "filter", "NOTE: it is not enabled; nothing is accepted"
    if document.schedule is not None:
        yield "schedule", _flow(plain.get("schedule", {}))
    for rule in plain["rules"]:
        name = rule.pop("name")
        yield f"rule {name}", ", ".join(f"{key} {_flow(value)}" for key, value in rule.items()) or "everything"
    if not document.rules:
        yield "filter", "NOTE: it has no rules; nothing is accepted"


def _flow(value: object) -> str:
    """Write a value in one line, the way a filter may be written."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")
