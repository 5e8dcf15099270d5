"""What is generated from the code is what the code says, and the schemas take what mlade takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from processor import document

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(
    path
    for path in (ROOT / "config").rglob("*.yaml")
    if "schema=" in path.read_text(encoding="utf-8").partition("\n")[0]
)


def schema(name: str) -> Any:  # noqa: ANN401 - JSON
    """Return a schema."""
    return json.loads((ROOT / "config" / "schema" / f"{name}.json").read_text(encoding="utf-8"))


def test_it_is_up_to_date() -> None:
    """The reference and the schemas; `make reference` writes them."""
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_names_its_schema_and_fits_it(path: Path) -> None:
    """In its first line, as editors read it, relative to the file."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    named = path.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert named.is_file()
    jsonschema.validate(document.parse(path.read_bytes()), json.loads(named.read_text(encoding="utf-8")))


def test_every_example_has_a_schema() -> None:
    """Those for people to copy: the configuration, filters, the one for IoT Edge."""
    assert {path.name for path in EXAMPLES} >= {"processor.yaml", "filter.yaml", "recommended.yaml", "ambiguous.yaml"}


def test_a_schema_refuses_what_mlade_refuses() -> None:
    """Unknown keys, wrong types, values that are none of the choices: while one types."""
    checker = jsonschema.Draft202012Validator(schema("filter"))
    assert checker.is_valid({"rules": [{"name": "a", "measure": "confidence", "band": {"min": 0.4}}]})
    assert not checker.is_valid({"rule": []})
    assert not checker.is_valid({"rules": [{"name": "a", "measure": "certainty"}]})
    assert not checker.is_valid({"enabled": "yes"})
    checker = jsonschema.Draft202012Validator(schema("processor"))
    whole = document.parse((ROOT / "config" / "processor.yaml").read_bytes())
    assert isinstance(whole, dict)
    assert checker.is_valid(whole | {"filter": {"rules": [{"name": "a", "sample": 0.5}]}})
    assert not checker.is_valid(whole | {"filter": {"rules": [{"name": "a", "smaple": 0.5}]}})


@pytest.mark.parametrize("name", ["processor", "filter"])
def test_every_key_says_what_it_is(name: str) -> None:
    """Editors show it, and so does the reference."""
    whole = schema(name)
    for part in (whole, *whole["$defs"].values()):
        for key, field in part["properties"].items():
            assert field.get("description"), key
