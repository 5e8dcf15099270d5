"""docs/: it builds without a warning, needs no network, and what it shows in YAML is what mlade takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

from processor import document
from processor.cli import app
from processor.filter import validate_filter
from processor.settings import build

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK: Final = re.compile(r"^( *)```yaml\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BLOCKS: Final = [
    pytest.param(page, found[2], id=f"{page.stem}-{number}")
    for page in PAGES
    for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
]
SOURCE: Final[dict[str, Any]] = {"name": "s", "topics": ["t"], "fields": ["a"]}
_OF_A_SOURCE: Final = {"topics", "input", "join", "format"}
LEAST: Final[dict[str, Any]] = {"id": "p", "sources": [SOURCE], "model": {"path": "m.onnx"}, "filter": {"rules": []}}


def whole(data: Any) -> dict[str, Any]:  # noqa: ANN401 - YAML
    """Return what a page shows, with the least around it that makes it a configuration."""
    if isinstance(data, list) and _OF_A_SOURCE & data[0].keys():
        data = {"sources": data}
    elif isinstance(data, list):
        data = {"filter": {"rules": data}}
    elif _OF_A_SOURCE & data.keys():
        data = {"sources": [{"name": "s"} | data]}
    elif "path" in data:
        data = {"model": data}
    elif {"rules", "schedule"} & data.keys():
        data = {"filter": data}
    elif {"rate", "pack"} & data.keys():
        data = {"bridges": [{"type": "iothub", "edge": True} | data]}
    elif data.get("model", {}).get("input", {}).get("mean") and "sources" not in data:
        data = {"sources": [{"name": "s", "topics": ["t"], "format": "image"}], **data}  # of three colours
    least = {key: value for key, value in LEAST.items() if "models" not in data or key not in ("model", "filter")}
    return {**least, **data}


@pytest.mark.parametrize(("page", "text"), BLOCKS)
def test_yaml_on_a_page_is_taken(page: Path, text: str) -> None:
    """Configurations, parts of them, and filters."""
    settings = build(whole(document.parse(text)), page.parent)
    for slot in settings.slots:
        if isinstance(slot.filter, dict):
            validate_filter(slot.filter)


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    """With every page in it; nothing that a page loads is elsewhere."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:)?//", page.read_text(encoding="utf-8"))
        assert loaded == [], page


COMMANDS: Final = [
    pytest.param(page, line, id=f"{page.stem}: {line[:40]}")
    for page in PAGES
    for line in re.findall(
        r"^ *(?:\$ )?(mlade (?!demo:)[a-z]+ .*-.*)$", page.read_text(encoding="utf-8").replace("\\\n", ""), re.MULTILINE
    )
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_on_a_page_is_one(page: Path, line: str) -> None:
    """With its options; what each does, and prints, the tests of the pages try."""
    words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
    command, name = get_command(app), "mlade"
    while words and words[0] in getattr(command, "commands", {}):
        name = words.pop(0)
        command = command.commands[name]  # type: ignore[attr-defined]
    command.make_context(name, words, resilient_parsing=True)
    known = {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    assert not unknown, f"{page.name} shows {line}"
