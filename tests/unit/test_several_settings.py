"""`models` in the configuration: what is told of mistakes, and whose sources are whose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from processor.assembly import most_messages
from processor.checking import check
from processor.errors import ConfigurationError, Problem
from processor.settings import build, load, load_filter
from processor.shadow.opening import obtain_both
from processor.types import MODEL_SLOT
from tests import models
from tests.unit.test_several_models import MOTIONS, NUMBERS, SOURCES, configured

FLAWS: Sequence[tuple[dict[str, Any], str, str]] = [
    ({"model": {"path": "m.onnx"}}, "models", "found beside model; give models, or model and filter"),
    ({"filter": {}}, "models", "found beside filter; give models, or model and filter"),
    ({"models": {}}, "model", "this key is required"),
    ({"models": {"motions": MOTIONS, "numbers": NUMBERS, "a b": NUMBERS}}, "models.a b", 'found "a b", expected'),
    ({"models": {"motions": MOTIONS, "numbers": {"path": "n.onnx"}}}, "models.numbers.filter", "this key is required"),
    (
        {"models": {"motions": MOTIONS | {"window": {"size": 0}}, "numbers": NUMBERS}},
        "models.motions.window.size",
        "found 0, expected a number of at least 1",
    ),
    (
        {"sources": [SOURCES[0], {**SOURCES[1], "model": "nosuch"}, SOURCES[2]]},
        "sources[1].model",
        'found "nosuch", expected a name in models: motions, numbers',
    ),
    (
        {"sources": [{"name": "x", "topics": ["x"], "fields": ["x", "y"]}, SOURCES[1], SOURCES[0]]},
        "sources[0].model",
        "this key is required: which of the models it feeds, motions, numbers",
    ),
    (
        {"sources": [SOURCES[0]]},
        "models.numbers",
        "no source feeds it; give one of them model: numbers, or leave it out",
    ),
    (
        {"sources": [SOURCES[1], SOURCES[0], {**SOURCES[2], "fields": ["x", "y", "z"]}]},
        "sources[2].fields",
        "found 3, but sources[1] has 2; all sources feed one model and must agree",
    ),
    (
        {"sources": [{**SOURCES[0], "topics": ["$share/g/imu"]}, *SOURCES[1:]]},
        "sources[0].topics[0]",
        "a shared subscription spreads a stream over processors, and a window holds 4 readings; $share needs models.m",
    ),
    (
        {"models": {"motions": MOTIONS | {"input": {"mean": [1, 2, 3]}}, "numbers": NUMBERS}},
        "models.motions.input.mean",
        "3 numbers for 2 fields; expected one, or one a field",
    ),
    (
        {"bridges": [{"type": "iothub", "edge": True, "legacy": {"field": "x"}}]},
        "bridges[0].legacy",
        "MLADE's keys are for the model named default, and models has none of that name",
    ),
]


@pytest.mark.parametrize(("changes", "path", "message"), FLAWS)
def test_flaws_are_told_where_they_are(tmp_path: Path, changes: dict[str, Any], path: str, message: str) -> None:
    """With the keys as the file has them."""
    with pytest.raises(ConfigurationError) as raised:
        configured(tmp_path, **changes)
    told = [(problem.path, problem.message[: len(message)]) for problem in raised.value.problems]
    assert (path, message) in told


def test_a_source_of_the_only_model_may_name_it_or_not(tmp_path: Path) -> None:
    """Be that one of `models` or not; another name is refused."""
    plain = {key: value for key, value in NUMBERS.items() if key != "filter"}
    source = {"name": "s", "topics": ["t"], "format": "number"}
    for data in ({"models": {"numbers": NUMBERS}}, {"model": plain, "filter": NUMBERS["filter"]}):
        name = next(iter(data["models"])) if "models" in data else MODEL_SLOT
        for feeds in ({}, {"model": name}):
            (slot,) = build({"id": "x", **data, "sources": [source | feeds]}, tmp_path).slots
            assert (slot.name, [one.name for one in slot.sources]) == (name, ["s"])
        with pytest.raises(ConfigurationError, match=r"sources\[0\].model"):
            build({"id": "x", **data, "sources": [source | {"model": "another"}]}, tmp_path)


def test_sources_of_different_models_may_differ_entirely(tmp_path: Path) -> None:
    """Images beside numbers: each of its size, with its bound on what goes together."""
    image = {"height": 512, "width": 512}
    eye = {"name": "eye", "model": "eyes", "topics": ["camera"], "format": "image", "image": image}
    both = {"numbers": NUMBERS, "eyes": {"path": "eyes.onnx", "filter": {}}}
    numbers, eyes = configured(tmp_path, models=both, sources=[SOURCES[1], eye]).slots
    assert (numbers.fields, eyes.fields) == (["value"], [])
    assert most_messages(numbers) > 1 << 60
    assert most_messages(eyes) == 42
    assert (numbers.root, eyes.root) == ("mlade/line-1/models/numbers", "mlade/line-1/models/eyes")
    assert load_filter(eyes)[0].rules == ()


def test_the_environment_reaches_a_models_keys(tmp_path: Path) -> None:
    """Numbers within its filter, too."""
    path = tmp_path / "processor.yaml"
    path.write_text(json.dumps({"id": "x", "models": {"motions": MOTIONS, "numbers": NUMBERS}, "sources": SOURCES}))
    variables = {"MLADE_MODELS__NUMBERS__THREADS": "3", "MLADE_MODELS__NUMBERS__FILTER__ENABLED": "false"}
    variables |= {"MLADE_MODELS__NUMBERS__FILTER__SCHEDULE__DUTY_CYCLE__FRACTION": "0.5"}
    variables |= {"MLADE_MODELS__NUMBERS__FILTER__SCHEDULE__DUTY_CYCLE__PERIOD": "10m"}
    _, numbers = load(path, variables).slots
    document, _ = load_filter(numbers)
    assert (numbers.model.threads, document.enabled) == (3, False)
    assert document.schedule is not None
    with pytest.raises(ConfigurationError, match=r"models\.numbers\.threads: .*set by MLADE_MODELS__NUMBERS__THREADS"):
        load(path, {"MLADE_MODELS__NUMBERS__THREADS": "0"})


def test_problems_are_told_as_the_file_is_written(tmp_path: Path) -> None:
    """Those of the model, the filter and the sources, as paths and within sentences; other words stay."""
    _, numbers = configured(tmp_path).slots
    problems = [
        Problem("model.window.size", "set model.window.size to 2, or model.input.layout"),
        Problem("filter", "f.yaml: empty"),
        Problem("filter.rules[0].band", "found 1"),
        Problem("sources[0].fields", "the model. It wants sources[0].fields of two; see my_model.path and remodel.x"),
    ]
    assert numbers.named(problems) == [
        Problem("models.numbers.window.size", "set models.numbers.window.size to 2, or models.numbers.input.layout"),
        Problem("models.numbers.filter", "f.yaml: empty"),
        Problem("models.numbers.filter.rules[0].band", "found 1"),
        Problem("sources[1].fields", "the model. It wants sources[1].fields of two; see my_model.path and remodel.x"),
    ]


def test_each_may_have_a_shadow(tmp_path: Path) -> None:
    """Its own; what is wrong with it is told at its place."""
    models.write(models.cnn(channels=2, size=4), tmp_path, "motions")
    models.write(models.identity(1), tmp_path, "numbers")
    both = {"motions": {**MOTIONS, "shadow": {"path": "motions.onnx", "sample": 0.5}}, "numbers": NUMBERS}
    motions, numbers = (obtain_both(slot, []) for slot in configured(tmp_path, models=both).slots)
    assert motions[2] is not None
    assert motions[2].part == 0.5
    assert numbers[2] is None
    path = tmp_path / "processor.yaml"
    both["numbers"] = {**NUMBERS, "shadow": {"path": "nosuch.onnx"}}
    path.write_text(json.dumps({"id": "x", "models": both, "sources": SOURCES}))
    with pytest.raises(ConfigurationError, match=r"models\.numbers\.shadow\.path: there is no model"):
        check(path)
