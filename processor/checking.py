"""What `mlade check` does: configuration, model and filter, each by itself and against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from processor import settings as configuration
from processor.assembly import filter_problems, legacy_problems, open_model
from processor.bridges.iothub import identity
from processor.errors import ConfigurationError, FilterRejected, ModelError, ModelMisfit, Problem
from processor.filter import FilterDocument, all_problems, to_plain
from processor.model.onnx_model import OnnxModel
from processor.mqtt.client import new_client
from processor.obtaining import obtain
from processor.registry.fetched import Fetched
from processor.settings import BridgeSettings, FilesBridge, HubBridge, Settings, client_options, read_filter
from processor.shadow.opening import Opened, known_times, open_shadow
from processor.units import duration_text, size_text


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that fits together."""

    settings: Settings
    model: OnnxModel
    shadow: Opened
    filter: FilterDocument


def check(path: Path) -> Checked:
    """Check a configuration file with the model and the filter it names.

    Raises:
        ConfigurationError: with every problem that can be found: filter and model are looked at even where other parts
            of the configuration are wrong.
    """
    overlay = configuration.read(path)
    directory = path.resolve().parent
    problems: list[Problem] = []
    settings = document = None
    try:
        settings = configuration.check(overlay, directory)
    except ConfigurationError as error:
        problems += error.problems
    if settings is not None:
        problems += _client_problems(settings)
    given = overlay.data.get("filter")
    rejected = None
    if isinstance(given, dict) or (isinstance(given, str) and given):
        try:
            document, _ = read_filter(given, lambda name: configuration.resolve(directory, name))
        except ConfigurationError as error:
            problems += error.problems
            rejected = error.__cause__ if isinstance(error.__cause__, FilterRejected) else None
    fitting = settings or _model_settings(overlay.data, directory)
    model = None
    if fitting is not None:
        fitting, model = _open_model(fitting, problems)
        settings = settings and fitting
    if fitting is not None and model is not None:
        fits = partial(filter_problems, fitting, model)
        found = all_problems(rejected, fits) if rejected else fits(document) if document else ()
        problems += [Problem(f"filter.{problem.path}", problem.message) for problem in found if problem.path]
    shadow = None if fitting is None or model is None else _open_shadow(fitting, model, problems)
    if settings is not None and model is not None:
        problems += legacy_problems(settings, model)
    if problems or settings is None or model is None or shadow is None or document is None:
        raise ConfigurationError(dict.fromkeys(problems))
    return Checked(settings, model, shadow, document)


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


def _model_settings(data: Mapping[str, Any], directory: Path) -> Settings | None:
    """Return settings with the model and the fields of a configuration that is wrong elsewhere; None if it is there."""
    sources = data.get("sources")
    readings: list[dict[str, Any]] = []
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, dict) and source.get("format") == "image":
            readings.append({"format": "image", "image": source.get("image", {})})
        elif isinstance(source, dict) and "fields" in source:
            readings.append({"fields": source["fields"]})
    state = {"state_dir": kept} if isinstance(kept := data.get("state_dir"), str) and kept else {}
    stand_ins = [{"name": f"s{n}", "topics": [f"t{n}"], **keys} for n, keys in enumerate(readings)]
    try:
        return configuration.build(
            {**state, "id": "check", "sources": stand_ins, "model": data.get("model"), "filter": {}}, directory
        )
    except ConfigurationError:
        return None  # told already


def _open_model(settings: Settings, problems: list[Problem]) -> tuple[Settings, OnnxModel | None]:
    """Return the settings with their model obtained, and the model; None, and why, where it does not open."""
    try:
        settings, _ = obtain(settings)  # apart: what its annotations say counts even where it does not open
        return settings, open_model(settings)
    except ModelMisfit as misfit:
        problems += misfit.problems
    except ModelError as error:
        problems.append(Problem("model.path", str(error)))
    return settings, None


def _open_shadow(settings: Settings, model: OnnxModel, problems: list[Problem]) -> Opened | None:
    try:
        return open_shadow(settings, model, known_times(settings.state_path))
    except ModelMisfit as misfit:
        problems += misfit.problems
    return None


def report(checked: Checked) -> Iterator[tuple[str, str]]:
    """Yield what the processor will do, as headings and lines; a heading is empty where it is the one before."""
    settings, model = checked.settings, checked.model
    broker, window = settings.broker, settings.model.window
    where = f"at {settings.root}/… on {configuration.without_password(broker.url)}" if broker else "without a broker"
    yield "processor", f"{settings.id}, {where}"
    for source in settings.sources:
        named = "SourceTimestamp" if source.format == "opcua" else source.time
        time = f"time from {named}" if named else "time of arrival"
        inlets = [f"{', '.join(source.topics)} at QoS {source.qos}"] if source.topics else []
        inlets += [f"the input {source.input}"] if source.input else []
        stream = f"stream {source.stream_template}"
        yield f"source {source.name}", f"{' and '.join(inlets)}, {source.format}, {stream}, {time}"
        for topic in source.topics:
            if topic.startswith(f"{settings.topic_prefix}/"):
                yield "", f"NOTE: nothing comes from {topic}: messages under topic_prefix are never readings"
    readings = "1 reading" if window.size == 1 else f"{window.size} readings"
    every = "every reading" if window.step == 1 else f"every {window.step} readings"
    gap = "whatever the gaps" if window.max_gap is None else f"emptied by a gap over {duration_text(window.max_gap)}"
    yield "windows", f"{readings} of one stream, {every}, {gap}; at most {window.max_streams} streams"
    yield "model input", f"{_readings(settings)} in {readings} become {model.input}"
    for heading, line in model.describe().items():
        if heading != "input":
            yield heading, line
        if heading == "model" and settings.fetched is not None:
            yield from _origin(settings.fetched)
    yield from checked.shadow.describe()
    yield from _filter_lines(checked.filter)
    for bridge in settings.bridges:
        to = _other_side(bridge, settings)
        yield "samples to", f"{bridge.type}: {to}" + (f" ({bridge.name})" if bridge.name != bridge.type else "")
    if not settings.bridges:
        yield "samples to", "nowhere: there is no bridge"
    outbox = settings.outbox
    until = f"{size_text(outbox.max_bytes)} or {duration_text(outbox.max_age)}, then {outbox.when_full}"
    yield "outbox", f"{settings.path(settings.state_dir)}, up to {until}"
    yield "http", settings.http.listen if settings.http else "off"


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


def _readings(settings: Settings) -> str:
    """Return what a reading is."""
    if settings.sources[0].format == "image":
        return f"images, {settings.sources[0].image},"
    names = [", ".join(source.fields) for source in settings.sources]
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
