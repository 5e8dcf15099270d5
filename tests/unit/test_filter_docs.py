"""docs/filter.md: every example is a filter, and every key of the language has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from processor.document import parse
from processor.filter import Cooldown, Keep, Limit, Rule, validate_filter
from processor.schedule_document import ScheduleDocument

TEXT = (Path(__file__).parents[2] / "docs" / "filter.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def document_of(example: str) -> Any:  # noqa: ANN401 - YAML
    """Return an example as a whole filter: some are a list of rules."""
    data = parse(example)
    return {"rules": data} if isinstance(data, list) else data


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_filters(example: str) -> None:
    """Without a problem."""
    assert validate_filter(document_of(example)).rules


def test_every_key_has_an_example() -> None:
    """Of rules, their conditions and schedules."""
    together = "\n".join(EXAMPLES)
    for section in (Rule, ScheduleDocument, Keep, Cooldown, Limit):
        for name, field in section.model_fields.items():
            assert f"{field.alias or name}:" in together
