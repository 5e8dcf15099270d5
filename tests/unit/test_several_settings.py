"""`models` in the configuration: what is told of mistakes, and whose sources are whose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from processor.assembly import most_messages
from processor.errors import ConfigurationError
from processor.settings import build, load_filter
from processor.types import MODEL_SLOT
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
