"""The examples of docs/formats.md: what a page shows must be so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import yaml

from processor.source_sections import Source

_PAGE = Path(__file__).parents[1] / "docs" / "formats.md"


class Example(NamedTuple):
    """A section's source, and the payload below it where it shows one."""

    source: Source
    payload: bytes


def example(section: str) -> Example:
    """Return a section's first example."""
    text = _PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for language, body in re.findall(r"^```(\w*)\n((?:(?!```).*\n)*)```$", text, re.MULTILINE):
        found.setdefault(language, body)
    (source,) = yaml.safe_load(found["yaml"])
    return Example(Source.model_validate(source), found.get("", "").encode())
