"""docs/from-mlade.md: its configuration is one, and its filter is what MLADE's keys become."""

from __future__ import annotations

import re
from pathlib import Path

from processor.document import parse
from processor.filter import check_against, to_plain, validate_filter
from processor.legacy import KEYS, as_filter
from processor.settings import build

GUIDE = (Path(__file__).parents[2] / "docs" / "from-mlade.md").read_text()


def blocks(language: str) -> list[object]:
    """Return what stands in the guide's blocks of a language."""
    return [parse(text) for text in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)]


def test_the_guides_configuration_and_filter_fit_each_other() -> None:
    """And the filter is the one that is made of the twin beside it."""
    configuration, document = blocks("yaml")
    (twin,) = blocks("json")
    assert isinstance(configuration, dict)
    assert isinstance(twin, dict)
    settings = build(configuration, Path())
    assert settings.broker is None
    assert settings.legacy is not None
    made = validate_filter(as_filter(twin, settings.legacy.field, settings.legacy.label))
    assert to_plain(made) == to_plain(validate_filter(document))
    labels = settings.model.output.labels or ()
    assert check_against(made, kind="score", labels=labels, fields=settings.sources[0].fields) == ()


def test_every_key_of_mlades_is_in_the_guide() -> None:
    """In the table."""
    assert all(f"| `{key}` |" in GUIDE for key in KEYS)
